-- Building a graph: every function here returns the JSON text of one node with its children inside and touches
-- no table. Text is joined, never parsed, so that a graph of n nodes costs what its text costs.
--   _envelope        a node as it is, anything else as a SQL node around it
--   _read_envelope   a node that somebody wrote by hand, in the order and spacing of ours
--   _check_call, _is_cron   what can be said of a call or a schedule before it runs
-- Callers' search paths are their own: what a schema of somebody else could shadow is qualified, or the path is set.
-- In plpgsql, whose expressions are planned once a session; a SQL function would be parsed anew in every statement.
-- Key order is part of the contract: node_type, left_node, right_node, condition_node, extra_nodes, query, result_name.

create or replace function df._is_type(p_type text)
returns boolean language sql immutable parallel safe as $$
  select coalesce(p_type in ('SQL', 'THEN', 'IF', 'LOOP', 'BREAK', 'JOIN', 'RACE', 'SLEEP', 'WAIT_SCHEDULE', 'SIGNAL',
    'HTTP', 'HTTP_MULTIPART'), false)
$$;

-- The children are spliced as text, so a text that begins like a node of ours is taken at its word: if the rest
-- is no JSON, df.start says so.
create or replace function df._envelope(p_node text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  if left(p_node, 31) ~ '^\{"node_type":"[A-Z_]+"[,}]' and df._is_type(split_part(left(p_node, 31), '"', 4)) then
    return p_node;
  elsif left(p_node, 6) = '{"?>":' then
    raise exception 'an if-then (?>) without its else (!>)' using errcode = 'PF104',
      hint = 'all df operators have the same precedence, from left to right: put parentheses around each branch';
  elsif ltrim(left(p_node, 100), E' \t\r\n') like '{%' then
    return df._read_envelope(p_node);
  end if;
  return '{"node_type":"SQL","query":' || pg_catalog.to_json(p_node)::text || '}';
end $$;

create or replace function df._order_node(p_node json, p_path text)
returns text language plpgsql immutable parallel safe as $$
declare
  v_text text := '{"node_type":' || pg_catalog.to_json(p_node ->> 'node_type')::text;
  v_key text;
  v_value json;
begin
  if json_typeof(p_node) is distinct from 'object' or not df._is_type(p_node ->> 'node_type') then
    raise exception 'Invalid durable function graph: % is not a node', p_path using errcode = 'PF101',
      detail = jsonb_build_object('path', p_path)::text;
  end if;
  foreach v_key in array array['left_node', 'right_node', 'condition_node'] loop
    v_value := p_node -> v_key;
    if json_typeof(v_value) <> 'null' then
      v_text := v_text || ',' || pg_catalog.to_json(v_key)::text || ':' || df._order_node(v_value, p_path || '.' || v_key);
    end if;
  end loop;
  v_value := p_node -> 'extra_nodes';
  if json_typeof(v_value) = 'array' then
    v_text := v_text || ',"extra_nodes":[' || (
      select string_agg(df._order_node(x.node, p_path || '.extra_nodes'), ',' order by x.n)
      from json_array_elements(v_value) with ordinality x(node, n)
    ) || ']';
  end if;
  foreach v_key in array array['query', 'result_name'] loop
    v_value := p_node -> v_key;
    if json_typeof(v_value) not in ('null', 'string') then
      raise exception 'Invalid durable function graph: %.% is not a string', p_path, v_key using errcode = 'PF101',
        detail = jsonb_build_object('path', p_path || '.' || v_key)::text;
    elsif json_typeof(v_value) = 'string' then
      v_text := v_text || ',' || pg_catalog.to_json(v_key)::text || ':' || pg_catalog.to_json(v_value #>> '{}')::text;
    end if;
  end loop;
  return v_text || '}';
end $$;

-- JSON that is no object with a known node_type is the text of a statement, which will fail where it is run.
create or replace function df._read_envelope(p_node text)
returns text language plpgsql immutable strict parallel safe as $$
declare
  v_node json;
begin
  begin
    v_node := p_node::json;
    if json_typeof(v_node) = 'object' and json_typeof(v_node -> 'node_type') = 'string'
      and df._is_type(v_node ->> 'node_type') then
      return df._order_node(v_node, 'root');
    end if;
  exception when invalid_text_representation or untranslatable_character then
    null;
  end;
  return '{"node_type":"SQL","query":' || pg_catalog.to_json(p_node)::text || '}';
end $$;

-- A node whose configuration is a JSON text inside the JSON.
create or replace function df._configured(p_type text, p_config text)
returns text language sql immutable parallel safe as $$
  select '{"node_type":"' || p_type || '","query":' || pg_catalog.to_json(p_config)::text || '}'
$$;

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
  v_fields text[] := regexp_split_to_array(btrim(upper(p_expression), E' \t'), '\s+');
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
      v_match := regexp_match(v_item, '^(?:\*|(\d{1,2}|[A-Z]{3})(?:-(\d{1,2}|[A-Z]{3}))?)(?:/(\d{1,4}))?$');
      if v_match is null or v_match[3]::integer = 0 then
        return false;
      end if;
      for v_bound in 1 .. 2 loop
        v_values[v_bound] := case
          when v_match[v_bound] ~ '^\d' then v_match[v_bound]::integer
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

-- Answers the method in capitals. A URL that holds a brace may get its scheme from a variable.
create or replace function df._check_call(p_url text, p_method text, p_timeout integer, p_methods text[])
returns text language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if p_url !~ '\{' and (p_url !~ '://' or lower(split_part(p_url, '://', 1)) not in ('http', 'https')) then
    raise exception 'Blocked: unsupported URL scheme ''%''. Only http and https are allowed', split_part(p_url, '://', 1)
      using errcode = 'PF104', detail = jsonb_build_object('field', 'url', 'expected', 'http:// or https://')::text;
  elsif p_method is null or upper(p_method) <> all (p_methods) then
    raise exception 'Invalid HTTP method%: %', case when 'GET' = any (p_methods) then '' else ' for multipart' end, p_method
      using errcode = 'PF104',
      detail = jsonb_build_object('field', 'method', 'expected', array_to_string(p_methods, ', '))::text;
  elsif p_timeout is null or p_timeout <= 0 then
    raise exception 'Timeout must be positive' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'timeout_seconds', 'expected', 'at least 1')::text;
  end if;
  return upper(p_method);
end $$;

create or replace function df.http(
  url text, method text default 'POST', body text default null, headers jsonb default null,
  timeout_seconds integer default 30
) returns text language plpgsql immutable parallel safe as $$
begin
  return df._configured('HTTP', '{"url":' || pg_catalog.to_json(url)::text
    || ',"method":"' || df._check_call(url, method, timeout_seconds, array['GET', 'POST', 'PUT', 'DELETE', 'PATCH'])
    || '","body":' || coalesce(pg_catalog.to_json(body)::text, 'null') || ',"headers":' || coalesce(df._compact(headers), 'null')
    || ',"timeout_seconds":' || timeout_seconds::text || '}');
end $$;

create or replace function df.http_multipart(
  url text, method text default 'POST', parts jsonb default null, headers jsonb default null,
  timeout_seconds integer default 30
) returns text language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_method text := df._check_call(url, method, timeout_seconds, array['POST', 'PUT', 'PATCH']);
begin
  if jsonb_typeof(parts) is distinct from 'array' or parts = '[]' then
    raise exception 'parts must contain at least one part' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'parts', 'expected', 'an array of {name, data_b64, …}')::text;
  end if;
  return df._configured('HTTP_MULTIPART', '{"url":' || pg_catalog.to_json(url)::text || ',"method":"' || v_method
    || '","parts":' || df._compact(parts) || ',"headers":' || coalesce(df._compact(headers), 'null')
    || ',"timeout_seconds":' || timeout_seconds::text || '}');
end $$;

-- `c ?> t !> e`: what ?> answers waits for its else. It says how long its then-branch is, so that nothing is parsed.
create or replace function df._if_then(condition text, then_branch text)
returns text language sql immutable strict parallel safe as $$
  select '{"?>":' || length(t.node) || ',"then":' || t.node || ',"condition":' || df._envelope(condition) || '}'
  from (select df._envelope(then_branch) as node) t
$$;

create or replace function df._else(half text, else_branch text)
returns text language plpgsql immutable strict parallel safe as $$
declare
  v_length integer := (regexp_match(left(half, 24), '^\{"\?>":(\d+),"then":'))[1]::integer;
  v_rest text;
begin
  if v_length is null then
    raise exception 'an else (!>) without its if-then (?>)' using errcode = 'PF104',
      hint = 'all df operators have the same precedence, from left to right: put parentheses around each branch';
  end if;
  v_rest := substr(half, 15 + length(v_length::text));
  return '{"node_type":"IF","left_node":' || left(v_rest, v_length) || ',"right_node":' || df._envelope(else_branch)
    || ',"condition_node":' || left(substr(v_rest, v_length + 14), -1) || '}';
end $$;

create or replace function df._loop_forever(body text)
returns text language sql immutable strict parallel safe as $$ select df.loop(body, null) $$;

-- Only a superuser may write to pg_catalog, so operators go where the search path of most sessions looks.
do $$
declare
  v_schema text := case
    when to_regnamespace('public') is not null and has_schema_privilege('public', 'create') then 'public' else 'df'
  end;
  v_operator record;
begin
  for v_operator in
    select * from (values
      ('~>', 'df.seq', true), ('|=>', 'df.as', true), ('&', 'df.join', true), ('|', 'df.race', true),
      ('?>', 'df._if_then', true), ('!>', 'df._else', true), ('@>', 'df._loop_forever', false)
    ) o(name, function, binary_form)
  loop
    if not exists (
      select from pg_operator o
      where o.oprname = v_operator.name and o.oprnamespace = v_schema::regnamespace and o.oprright = 'text'::regtype
        and o.oprleft = case when v_operator.binary_form then 'text'::regtype else 0 end
    ) then
      execute format('create operator %I.%s (function = %s, %s rightarg = text)', v_schema, v_operator.name,
        v_operator.function, case when v_operator.binary_form then 'leftarg = text,' else '' end);
    end if;
  end loop;
end $$;
