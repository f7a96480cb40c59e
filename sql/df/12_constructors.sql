-- Building a graph: every function here returns the JSON text of one node with its children inside and touches
-- no table. Text is joined, never parsed, so that a graph of n nodes costs what its text costs.
-- In plpgsql, whose expressions are planned once a session; a SQL function would be parsed anew in every statement.
--   _is_cron   what can be said of a schedule before it runs

create or replace function df.sql(query text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"SQL","query":' || pg_catalog.to_json(query)::text || '}';
end $$;

create or replace function df.seq(a text, b text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"THEN","left_node":' || df._envelope(a) || ',"right_node":' || df._envelope(b) || '}';
end $$;

create or replace function df.join(a text, b text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"JOIN","left_node":' || df._envelope(a) || ',"right_node":' || df._envelope(b) || '}';
end $$;

create or replace function df.join3(a text, b text, c text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"JOIN","left_node":' || df._envelope(a) || ',"right_node":' || df._envelope(b)
    || ',"extra_nodes":[' || df._envelope(c) || ']}';
end $$;

create or replace function df.race(a text, b text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"RACE","left_node":' || df._envelope(a) || ',"right_node":' || df._envelope(b) || '}';
end $$;

create or replace function df.if(condition text, then_branch text, else_branch text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"IF","left_node":' || df._envelope(then_branch) || ',"right_node":' || df._envelope(else_branch)
    || ',"condition_node":' || df._envelope(condition) || '}';
end $$;

create or replace function df.if_rows(result_name text, then_branch text, else_branch text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  return '{"node_type":"IF","left_node":' || df._envelope(then_branch) || ',"right_node":' || df._envelope(else_branch)
    || ',"query":'
    || pg_catalog.to_json('{"condition_type":"result_has_rows","result_name":' || pg_catalog.to_json(result_name)::text || '}')::text || '}';
end $$;

create or replace function df.loop(body text, condition text default null)
returns text language plpgsql immutable parallel safe as $$
begin
  return '{"node_type":"LOOP","left_node":' || df._envelope(body)
    || coalesce(',"condition_node":' || df._envelope(condition), '') || '}';
end $$;

create or replace function df.break(value text default null)
returns text language plpgsql immutable parallel safe as $$
begin
  return df._configured('BREAK', '{"break_value":' || coalesce(pg_catalog.to_json(value)::text, 'null') || '}');
end $$;

-- result_name is the last key, and the text before it cannot end like one: its quotes would be escaped.
create or replace function df.as(fut text, name text)
returns text language plpgsql immutable strict parallel safe as $$
declare
  v_node text := df._envelope(fut);
  v_bare text;
begin
  if name = '' then
    raise exception 'df.as: result name cannot be empty' using errcode = 'PF104';
  elsif name !~ '^[A-Za-z_][A-Za-z0-9_]*$' then
    raise exception 'df.as: result name ''%'' is not a valid identifier', name using errcode = 'PF104',
      detail = pg_catalog.jsonb_build_object('field', 'name', 'expected', '[A-Za-z_][A-Za-z0-9_]*')::text;
  end if;
  if v_node like '%"}' then
    v_bare := rtrim(left(v_node, -2), 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_');
    if right(v_bare, 16) = ',"result_name":"' then
      v_node := left(v_bare, -16) || '}';
    end if;
  end if;
  return left(v_node, -1) || ',"result_name":"' || name || '"}';
end $$;

create or replace function df.sleep(seconds bigint)
returns text language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if seconds < 0 then
    raise exception 'Sleep duration must be non-negative' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'seconds', 'expected', 'at least 0')::text;
  end if;
  return df._configured('SLEEP', seconds::text);
end $$;

-- Five fields, or six with seconds first: numbers, names of months and weekdays, ranges, lists, steps.
create or replace function df._is_cron(p_expression text)
returns boolean language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_fields text[] := regexp_split_to_array(btrim(upper(p_expression collate "C"), E' \t'), '[[:space:]]+');
  v_names text[] := array['', '', '', '', 'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC', 'SUN MON TUE WED THU FRI SAT'];
  v_least integer[] := array[0, 0, 0, 1, 1, 0];
  v_most integer[] := array[59, 59, 23, 31, 12, 7];
  v_field integer := 6 - cardinality(v_fields);
  v_text text;
  v_item text;
  v_match text[];
  v_values integer[];
begin
  if v_field not in (0, 1) then
    return false;
  end if;
  foreach v_text in array v_fields loop
    v_field := v_field + 1;
    foreach v_item in array string_to_array(v_text, ',') loop
      v_match := regexp_match(v_item, '^(?:[*]|([0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?)(?:/([0-9]{1,4}))?$');
      if v_match is null or v_match[3]::integer = 0 then
        return false;
      end if;
      for v_bound in 1 .. 2 loop
        v_values[v_bound] := case
          when v_match[v_bound] ~ '^[0-9]' then v_match[v_bound]::integer
          else array_position(string_to_array(v_names[v_field], ' '), v_match[v_bound]) - 1 + v_least[v_field]
        end;
        if v_match[v_bound] is not null
          and (v_values[v_bound] is null or v_values[v_bound] not between v_least[v_field] and v_most[v_field]) then
          return false;
        end if;
      end loop;
      if v_values[1] > v_values[2] then
        return false;
      end if;
    end loop;
  end loop;
  return true;
end $$;

create or replace function df.wait_for_schedule(cron_expr text)
returns text language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if not df._is_cron(cron_expr) then
    raise exception 'Invalid cron expression ''%''', cron_expr using errcode = 'PF104',
      detail = jsonb_build_object('field', 'cron_expr', 'expected', 'minute hour day month weekday')::text;
  end if;
  return df._configured('WAIT_SCHEDULE', '{"cron_expr":' || pg_catalog.to_json(cron_expr)::text || '}');
end $$;

create or replace function df.wait_for_signal(name text, timeout_seconds integer default null)
returns text language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if name = '' then
    raise exception 'Signal name cannot be empty' using errcode = 'PF104';
  elsif timeout_seconds <= 0 then
    raise exception 'Timeout must be positive' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'timeout_seconds', 'expected', 'at least 1')::text;
  end if;
  return df._configured('SIGNAL', '{"signal_name":' || pg_catalog.to_json(name)::text
    || ',"timeout_seconds":' || coalesce(timeout_seconds::text, 'null') || '}');
end $$;
