-- A node as text: one JSON object with its children inside.
--   _envelope        a node as it is, anything else as a SQL node around it
--   _read_envelope   a node written by hand, in the constructors' order and spacing
--   _misfit          what keeps a JSON value from being read as a node
--   _no_step, _check_step   what a function that builds no node answers, and its refusal as a node
-- Callers' search paths are their own: what another schema could shadow is qualified, or the path is set.
-- Key order is part of the contract: node_type, left_node, right_node, condition_node, extra_nodes, query, result_name.

create or replace function df._is_type(p_type text)
returns boolean language sql immutable parallel safe as $$
  select coalesce(p_type in ('SQL', 'THEN', 'IF', 'LOOP', 'BREAK', 'JOIN', 'RACE', 'SLEEP', 'WAIT_SCHEDULE', 'SIGNAL',
    'HTTP', 'HTTP_MULTIPART'), false)
$$;

create or replace function df._unknown_type(p_type text)
returns text language sql immutable parallel safe as $$
  select format('Unknown node_type ''%s''. Valid types: SQL, THEN, IF, JOIN, LOOP, BREAK, RACE, SLEEP, WAIT_SCHEDULE, HTTP, '
    'HTTP_MULTIPART, SIGNAL', p_type)
$$;

-- Null where nothing does. Looks at this node only: its children are nodes of their own.
create or replace function df._misfit(p_node jsonb)
returns text language plpgsql immutable parallel safe as $$
declare
  v_key text;
begin
  if jsonb_typeof(p_node) is distinct from 'object' then
    return 'a node must be a JSON object';
  elsif jsonb_typeof(p_node -> 'node_type') is distinct from 'string' then
    return 'missing field `node_type`, a string';
  elsif jsonb_typeof(p_node -> 'left_node') not in ('object', 'null')
    or jsonb_typeof(p_node -> 'right_node') not in ('object', 'null') then
    return 'left_node and right_node: Durofut children must be JSON objects';
  elsif jsonb_typeof(p_node -> 'condition_node') not in ('object', 'null') then
    return 'condition_node must be a Durofut JSON object';
  elsif jsonb_typeof(p_node -> 'extra_nodes') <> 'array' then
    return 'extra_nodes must be an array of Durofut JSON objects';
  elsif p_node ? 'extra_nodes' then
    if exists (select from jsonb_array_elements(p_node -> 'extra_nodes') x where jsonb_typeof(x) <> 'object') then
      return 'extra_nodes entries must be Durofut JSON objects';
    end if;
  end if;
  foreach v_key in array array['query', 'result_name'] loop
    if jsonb_typeof(p_node -> v_key) not in ('string', 'null') then
      return v_key || ' must be a string';
    end if;
  end loop;
  return null;
end $$;

-- df.setvar and its like answer plain text, which would be taken for a statement. They leave their name and the time of
-- their statement in a setting.
create or replace function df._no_step(p_function text, p_answer text)
returns text language plpgsql volatile as $$
begin
  perform pg_catalog.set_config('df.non_future_helper', p_function || ' ' || pg_catalog.statement_timestamp()::text, true);
  return p_answer;
end $$;

create or replace function df._check_step(p_text text)
returns void language plpgsql stable as $$
begin
  if current_setting('df.non_future_helper', true) like '% ' || statement_timestamp() then
    raise exception '% cannot be used as a workflow step. Call % before df.start().',
      split_part(current_setting('df.non_future_helper'), ' ', 1), split_part(current_setting('df.non_future_helper'), ' ', 1)
      using errcode = 'PF104';
  end if;
end $$;

-- Children are spliced as text: a text that begins like a constructor's is taken as it is. df.start finds out if the rest
-- is not JSON.
create or replace function df._envelope(p_node text)
returns text language plpgsql immutable strict parallel safe as $$
begin
  if left(p_node, 31) ~ '^[{]"node_type":"[A-Z_]+"[,}]' and df._is_type(split_part(left(p_node, 31), '"', 4)) then
    return p_node;
  elsif left(p_node, 6) = '{"?>":' then
    raise exception 'an if-then (?>) without its else (!>)' using errcode = 'PF104',
      hint = 'all df operators have the same precedence, from left to right: put parentheses around each branch';
  elsif ltrim(left(p_node, 100), E' \t\r\n') like '{%' then
    return df._read_envelope(p_node);
  elsif p_node in ('OK', 'completed', 'failed', 'cancelled') then
    perform df._check_step(p_node);
  end if;
  return '{"node_type":"SQL","query":' || pg_catalog.to_json(p_node)::text || '}';
end $$;

-- JSON without a known node_type is the text of a statement, which will fail when it is run. Children are kept as they were
-- written: df.start reads them.
create or replace function df._read_envelope(p_node text)
returns text language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_node json;
  v_read jsonb;
  v_key text;
  v_text text;
begin
  begin
    v_node := p_node::json;
    v_read := p_node::jsonb;
  exception when invalid_text_representation or untranslatable_character then
    null;
  end;
  if jsonb_typeof(v_read -> 'node_type') is distinct from 'string' then
    return df.sql(p_node);
  elsif df._misfit(v_read) is not null then
    raise exception 'Invalid Durofut JSON: failed to deserialize workflow step: %', df._misfit(v_read) using errcode = 'PF101',
      detail = jsonb_build_object('path', 'root', 'problem', df._misfit(v_read))::text;
  elsif not df._is_type(v_read ->> 'node_type') then
    return df.sql(p_node);
  end if;
  v_text := '{"node_type":"' || (v_node ->> 'node_type') || '"';
  foreach v_key in array array['left_node', 'right_node', 'condition_node', 'extra_nodes', 'query', 'result_name'] loop
    if json_typeof(v_node -> v_key) = 'array' then
      v_text := v_text || ',"' || v_key || '":[' || coalesce((
        select string_agg(x.node::text, ',' order by x.n) from json_array_elements(v_node -> v_key) with ordinality x(node, n)
      ), '') || ']';
    elsif json_typeof(v_node -> v_key) = 'string' then
      v_text := v_text || ',"' || v_key || '":' || to_json(v_node ->> v_key)::text;
    elsif json_typeof(v_node -> v_key) = 'object' then
      v_text := v_text || ',"' || v_key || '":' || (v_node -> v_key)::text;
    end if;
  end loop;
  return v_text || '}';
end $$;

-- A node whose configuration is a JSON text inside the JSON.
create or replace function df._configured(p_type text, p_config text)
returns text language sql immutable parallel safe as $$
  select '{"node_type":"' || p_type || '","query":' || pg_catalog.to_json(p_config)::text || '}'
$$;
