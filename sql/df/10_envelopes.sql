-- A node as text: one JSON object with its children inside.
--   _envelope        a node as it is, anything else as a SQL node around it
--   _read_envelope   a node that somebody wrote by hand, in the order and spacing of ours
-- Callers' search paths are their own: what a schema of somebody else could shadow is qualified, or the path is set.
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
