-- From the text of a graph to its nodes, and what a node must look like to be run.
--   _read_graph                               the text as JSON
--   _flatten → _check_node → _is_configured   a graph as rows; _bad_graph raises what is wrong with it
--   _prepare → _read_graph, _flatten          a registered graph, flattened once and for ever

create or replace function df._bad_graph(p_path text, p_problem text)
returns void language plpgsql immutable as $$
begin
  raise exception 'Invalid durable function graph: %: %', p_path, p_problem using errcode = 'PF101',
    detail = jsonb_build_object('path', p_path, 'problem', p_problem)::text;
end $$;

create or replace function df._too_large(p_path text, p_problem text, p_field text, p_limit integer)
returns void language plpgsql immutable as $$
begin
  raise exception 'Invalid durable function graph: %: %', regexp_replace(p_path, '^(.{40}).+$', E'\\1…'), p_problem using errcode = 'PF103',
    detail = jsonb_build_object('field', p_field, 'limit', p_limit)::text,
    hint = 'balance long sequences, loop over the data, or start parts as instances of their own';
end $$;

-- Text that is not an envelope is a statement.
create or replace function df._read_graph(p_graph text)
returns jsonb language plpgsql immutable as $$
declare
  v_node jsonb;
begin
  begin
    if ltrim(left(p_graph, 100), E' \t\r\n') like '{%' then
      v_node := p_graph::jsonb;
    end if;
  exception
    when statement_too_complex then
      perform df._too_large('root', 'Graph exceeds maximum nesting depth of 256', 'depth', 256);
    when invalid_text_representation or untranslatable_character then
      if left(p_graph, 31) ~ '^[{]"node_type":"[A-Z_]+"[,}]' then
        perform df._bad_graph('root', sqlerrm);
      end if;
  end;
  if jsonb_typeof(v_node -> 'node_type') is distinct from 'string' then
    return df._envelope(p_graph)::jsonb;
  elsif not df._is_type(v_node ->> 'node_type') then
    raise exception 'Invalid durable function: %', df._unknown_type(v_node ->> 'node_type') using errcode = 'PF101',
      detail = jsonb_build_object('path', 'root', 'node_type', v_node -> 'node_type')::text;
  elsif df._misfit(v_node) is not null then
    raise exception 'Invalid durable function: Malformed Durofut JSON with node_type ''%'': %', v_node ->> 'node_type', df._misfit(v_node)
      using errcode = 'PF101', detail = jsonb_build_object('path', 'root', 'problem', df._misfit(v_node))::text;
  end if;
  return v_node;
end $$;

-- True if the configuration of a node, which may be written by hand, says what an engine needs.
create or replace function df._is_configured(p_type text, p_query text)
returns boolean language plpgsql immutable as $$
declare
  v_spec json;
begin
  v_spec := p_query::json;
  return json_typeof(v_spec) = 'object' and case
    when p_type = 'IF' then v_spec -> 'condition_type' is null
      or (v_spec ->> 'condition_type' = 'result_has_rows' and json_typeof(v_spec -> 'result_name') = 'string')
    when p_type = 'SIGNAL' then v_spec ->> 'signal_name' <> '' and json_typeof(v_spec -> 'signal_name') = 'string'
      and coalesce(json_typeof(v_spec -> 'timeout_seconds') in ('number', 'null'), true)
      and coalesce((v_spec ->> 'timeout_seconds')::numeric between 0 and 1e12, true)
    when p_type = 'WAIT_SCHEDULE' then json_typeof(v_spec -> 'cron_expr') = 'string' and df._is_cron(v_spec ->> 'cron_expr')
    when p_type in ('HTTP', 'HTTP_MULTIPART') then json_typeof(v_spec -> 'url') = 'string'
      and v_spec ->> 'method' in ('GET', 'POST', 'PUT', 'DELETE', 'PATCH')
      and coalesce(json_typeof(v_spec -> 'body') in ('string', 'null'), true)
      and coalesce(json_typeof(v_spec -> 'headers') in ('object', 'null'), true)
      and coalesce(json_typeof(v_spec -> 'timeout_seconds') in ('number', 'null'), true)
      and coalesce((v_spec ->> 'timeout_seconds')::numeric between 0.001 and 1e9, true)
      and case p_type when 'HTTP' then v_spec -> 'parts' is null else json_typeof(v_spec -> 'parts') = 'array' end
    else true
  end;
exception when data_exception then
  return false;
end $$;

-- What a node must look like to be run; children are counted by the caller: L, R, C for a condition, E for an extra one.
create or replace function df._check_node(p_path text, p_type text, p_query text, p_name text, p_children text)
returns void language plpgsql immutable as $$
declare
  v_config jsonb;
begin
  if p_children like '%C%' and p_type not in ('IF', 'LOOP') then
    perform df._bad_graph(p_path, format('condition_node is not valid for %s nodes', p_type));
  elsif p_children like '%E%' and p_type <> 'JOIN' then
    perform df._bad_graph(p_path, format('extra_nodes is not valid for %s nodes', p_type));
  elsif p_query is not null and p_type in ('THEN', 'RACE') then
    perform df._bad_graph(p_path, p_type || ' has no query');
  elsif p_query is not null and p_type in ('IF', 'LOOP', 'JOIN') then
    begin
      v_config := p_query::jsonb;
    exception when data_exception then
      perform df._bad_graph(p_path, format('query in %s must be valid JSON config: %s; condition_node and extra_nodes are '
        'first-class fields of the node', p_type, sqlerrm));
    end;
    if v_config ? (case p_type when 'JOIN' then 'extra_nodes' else 'condition_node' end) then
      perform df._bad_graph(p_path, format('%s in %s must be a first-class Durofut field, not embedded in query',
        case p_type when 'JOIN' then 'extra_nodes' else 'condition_node' end, p_type));
    elsif jsonb_typeof(v_config) <> 'object' then
      perform df._bad_graph(p_path, format('query in %s must be a JSON config object', p_type));
    end if;
  end if;
  if p_children !~ (case
    when p_type in ('THEN', 'RACE') then '^LR$'
    when p_type = 'JOIN' then '^LRE*$'
    when p_type = 'IF' and v_config ? 'condition_type' then '^LR$'
    when p_type = 'IF' then '^LRC$'
    when p_type = 'LOOP' then '^LC?$'
    else '^$'
  end) then
    perform df._bad_graph(p_path, case p_type
      when 'IF' then 'IF needs one condition and two branches'
      when 'LOOP' then 'LOOP needs a body'
      else case when p_type in ('THEN', 'JOIN', 'RACE') then p_type || ' needs two children'
        else p_type || ' has no children' end
    end);
  elsif p_query is null and p_type not in ('THEN', 'JOIN', 'RACE', 'IF', 'LOOP') then
    perform df._bad_graph(p_path, p_type || ' needs a query');
  elsif p_type = 'SLEEP' and p_query !~ '^[0-9]{1,18}$' then
    perform df._bad_graph(p_path, 'SLEEP needs a number of seconds');
  elsif p_query is not null and p_type not in ('SQL', 'SLEEP') and not coalesce(df._is_configured(p_type, p_query), false) then
    perform df._bad_graph(p_path, p_type || ' cannot be read: ' || left(p_query, 200));
  elsif p_name !~ '^[A-Za-z_][A-Za-z0-9_]*$' then
    perform df._bad_graph(p_path, format('result name ''%s'' is not a valid identifier', p_name));
  end if;
end $$;

-- A graph as rows, the root first. jsonb is parsed once and then only copied; the stack holds disjoint parts of it.
-- Ids: a random start, then steps of an odd number, so that they are distinct among the 2^32 without a look-up.
create or replace function df._flatten(p_root jsonb)
returns setof df._prepared_nodes language plpgsql volatile as $$
declare
  c_depth constant integer := 256;
  c_nodes constant integer := 10000;
  c_keys constant text[] := array['extra_nodes', 'right_node', 'left_node', 'condition_node'];
  v_docs jsonb[] := array[p_root];
  v_ids text[];
  v_depths integer[] := array[0];
  v_paths text[] := array['root'];
  v_top integer := 1;
  v_count bigint := 1;
  v_base bigint := trunc(random() * 4294967296);
  v_doc jsonb;
  v_child jsonb;
  v_depth integer;
  v_path text;
  v_key text;
  v_id text;
  v_children text;
  v_extra text[];
  v_condition text;
  v_node df._prepared_nodes;
begin
  v_ids[1] := df._node_id(v_base, 0);
  while v_top > 0 loop
    v_doc := v_docs[v_top];
    v_depth := v_depths[v_top];
    v_path := v_paths[v_top];
    v_node.id := v_ids[v_top];
    v_top := v_top - 1;
    if v_depth > c_depth then
      perform df._too_large(v_path, format('Graph exceeds maximum nesting depth of %s', c_depth), 'depth', c_depth);
    end if;
    if df._misfit(v_doc) is not null then
      perform df._bad_graph(v_path, case when v_depth > 0 then 'failed to deserialize Durofut child: ' else '' end || df._misfit(v_doc));
    end if;
    v_node.node_type := v_doc ->> 'node_type';
    if not df._is_type(v_node.node_type) then
      perform df._bad_graph(v_path, df._unknown_type(v_node.node_type));
    end if;
    v_node.query := v_doc ->> 'query';
    v_node.result_name := v_doc ->> 'result_name';
    v_node.left_node := null;
    v_node.right_node := null;
    v_condition := null;
    v_extra := null;
    v_children := '';
    foreach v_key in array c_keys loop
      v_child := v_doc -> v_key;
      continue when v_child is null or jsonb_typeof(v_child) = 'null';
      if v_key = 'extra_nodes' then
        for n in reverse jsonb_array_length(v_child) - 1 .. 0 loop
          v_id := df._node_id(v_base, v_count);
          v_count := v_count + 1;
          v_top := v_top + 1;
          v_docs[v_top] := v_child -> n;
          v_ids[v_top] := v_id;
          v_depths[v_top] := v_depth + 1;
          v_paths[v_top] := v_path || '.extra_nodes[' || n || ']';
          v_extra := v_id || v_extra;
          v_children := 'E' || v_children;
        end loop;
      else
        v_id := df._node_id(v_base, v_count);
        v_count := v_count + 1;
        v_top := v_top + 1;
        v_docs[v_top] := v_child;
        v_ids[v_top] := v_id;
        v_depths[v_top] := v_depth + 1;
        v_paths[v_top] := v_path || '.' || case v_key when 'condition_node' then v_key else split_part(v_key, '_', 1) end;
        case v_key
          when 'right_node' then v_node.right_node := v_id; v_children := 'R' || v_children;
          when 'left_node' then v_node.left_node := v_id; v_children := 'L' || v_children;
          else v_condition := v_id; v_children := v_children || 'C';
        end case;
      end if;
    end loop;
    if v_count > c_nodes then
      perform df._too_large(v_path, format('Workflow exceeds maximum node count of %s', c_nodes), 'nodes', c_nodes);
    end if;
    perform df._check_node(v_path, v_node.node_type, v_node.query, v_node.result_name, v_children);
    if v_condition is not null then
      v_node.query := '{"condition_node":"' || v_condition || '"}';
    elsif v_extra is not null then
      v_node.query := '{"extra_nodes":["' || array_to_string(v_extra, '","') || '"]}';
    end if;
    return next v_node;
  end loop;
end $$;

-- Flattens a graph that will be started often and answers its hash. df.start knows it again by its text.
create or replace function df._prepare(p_graph text)
returns bytea language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_hash bytea := sha256(convert_to(p_graph, 'UTF8'));
  v_nodes df._prepared_nodes[];
begin
  if exists (select from df._prepared_graphs t where t.hash = v_hash) then
    return v_hash;
  end if;
  select array_agg(f.*) into v_nodes from df._flatten(df._read_graph(p_graph)) f;
  insert into df._prepared_graphs (hash, root_node) values (v_hash, v_nodes[1].id) on conflict do nothing;
  if found then
    insert into df._prepared_nodes (hash, id, node_type, query, result_name, left_node, right_node)
    select v_hash, n.id, n.node_type, n.query, n.result_name, n.left_node, n.right_node from unnest(v_nodes) n;
  end if;
  return v_hash;
end $$;
