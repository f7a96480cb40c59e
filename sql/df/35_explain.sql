-- df.explain draws a graph as an indented tree: of an instance with a mark per node, of an expression its shape.
--   explain → _explain → _explain_instance, or _evaluate, _draw_graph
--   both → _draw → _node_line

create or replace function df._status_mark(p_status text)
returns text language sql immutable parallel safe as $$
  select case p_status
    when 'completed' then '✓ Completed' when 'failed' then '✗ Failed' when 'running' then '⏳ Running'
    when 'pending' then '○ Pending' when 'skipped' then '⊘ Skipped' when 'cancelled' then '⊘ Cancelled' else ''
  end
$$;

create or replace function df._node_line(p_type text, p_query text, p_name text, p_arms integer)
returns text language plpgsql immutable parallel safe as $$
declare
  v_config jsonb;
  v_line text;
begin
  begin
    v_config := case when p_type <> 'SQL' then p_query::jsonb end;
  exception when invalid_text_representation then
    v_config := null;
  end;
  v_line := case p_type
    when 'SQL' then 'SQL: ' || coalesce(regexp_replace(btrim(p_query, E' \t\r\n'), '[[:space:]]+', ' ', 'g'), '')
    when 'SLEEP' then 'SLEEP ' || coalesce(p_query, '?') || 's'
    when 'JOIN' then 'JOIN (' || p_arms || ')'
    when 'LOOP' then case when v_config ? 'condition_node' then 'LOOP (while)' else 'LOOP (infinite)' end
    when 'IF' then case when v_config ? 'condition_type' then 'IF rows of ''' || (v_config ->> 'result_name') || '''' else 'IF' end
    when 'BREAK' then 'BREAK' || coalesce(' ''' || (v_config ->> 'break_value') || '''', '')
    when 'WAIT_SCHEDULE' then 'WAIT ''' || coalesce(v_config ->> 'cron_expr', '?') || ''''
    when 'SIGNAL' then 'SIGNAL ''' || coalesce(v_config ->> 'signal_name', '?') || ''''
      || coalesce(' (' || (v_config ->> 'timeout_seconds') || 's)', '')
    when 'HTTP' then 'HTTP ' || coalesce(v_config ->> 'method', '?') || ' ' || coalesce(v_config ->> 'url', '?')
    when 'HTTP_MULTIPART' then 'HTTP_MULTIPART ' || coalesce(v_config ->> 'method', '?') || ' ' || coalesce(v_config ->> 'url', '?')
    else p_type
  end;
  return v_line || coalesce(' |=> ''' || p_name || '''', '');
end $$;

-- p_nodes: {id: [type, query, name, left, right, status]}. What is still to be drawn lies on a stack: a label, or a
-- node with the mark before it. A THEN draws its two sides, one below the other.
create or replace function df._draw(p_nodes jsonb, p_root text)
returns text language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  v_ids text[] := array[p_root];
  v_texts text[] := array[''];
  v_indents integer[] := array[0];
  v_top integer := 1;
  v_lines text[] := '{}';
  v_marks text[] := '{}';
  v_node jsonb;
  v_text text;
  v_indent integer;
  v_arms text[];
  v_labels text[];
  v_query jsonb;
begin
  while v_top > 0 loop
    v_node := p_nodes -> v_ids[v_top];
    v_text := v_texts[v_top];
    v_indent := v_indents[v_top];
    v_top := v_top - 1;
    if v_node is null then
      v_lines := v_lines || (repeat(' ', v_indent) || v_text);
      v_marks := v_marks || ''::text;
      continue;
    elsif v_node ->> 0 = 'THEN' then
      v_ids[v_top + 1] := v_node ->> 4; v_texts[v_top + 1] := '→ '; v_indents[v_top + 1] := v_indent;
      v_ids[v_top + 2] := v_node ->> 3; v_texts[v_top + 2] := v_text; v_indents[v_top + 2] := v_indent;
      v_top := v_top + 2;
      continue;
    end if;
    v_arms := array[v_node ->> 3, v_node ->> 4];
    v_labels := '{}';
    v_query := case when v_node ->> 0 in ('IF', 'LOOP', 'JOIN') then (v_node ->> 1)::jsonb end;
    case v_node ->> 0
      when 'IF' then
        v_labels := array['✓ then:', '✗ else:'];
        if v_query ? 'condition_node' then
          v_arms := (v_query ->> 'condition_node') || v_arms;
          v_labels := '? condition:'::text || v_labels;
        end if;
      when 'LOOP' then
        v_arms := array_remove(array[v_arms[1], v_query ->> 'condition_node'], null);
        v_labels := array['↻ body:', '? while:'];
      when 'JOIN', 'RACE' then
        v_arms := v_arms || array(select jsonb_array_elements_text(v_query -> 'extra_nodes'));
        v_labels := array(select '║ branch ' || n || ':' from generate_series(1, cardinality(v_arms)) n);
      else
        v_arms := '{}';
    end case;
    v_lines := v_lines
      || (repeat(' ', v_indent) || v_text || df._node_line(v_node ->> 0, v_node ->> 1, v_node ->> 2, cardinality(v_arms)));
    v_marks := v_marks || df._status_mark(v_node ->> 5);
    for n in reverse cardinality(v_arms) .. 1 loop
      v_ids[v_top + 1] := v_arms[n];
      v_texts[v_top + 1] := case when v_labels[n] like '║%' and n < cardinality(v_arms) then '├─' else '└─' end;
      v_indents[v_top + 1] := v_indent + 6;
      v_ids[v_top + 2] := ''; v_texts[v_top + 2] := v_labels[n]; v_indents[v_top + 2] := v_indent + 4;
      v_top := v_top + 2;
    end loop;
  end loop;
  return (
    select string_agg(rpad(l.line, l.widest) || '    ' || l.mark, E'\n' order by l.n)
    from (
      select x.line, x.mark, x.n, max(length(x.line)) over () as widest
      from unnest(v_lines, v_marks) with ordinality x(line, mark, n)
    ) l
  );
end $$;

-- A graph that is not started, from its JSON; an error in it is the answer.
create or replace function df._draw_graph(p_graph jsonb)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  return (
    select df._draw(jsonb_object_agg(f.id, jsonb_build_array(f.node_type, f.query, f.result_name, f.left_node, f.right_node, '')),
      (array_agg(f.id))[1])
    from df._flatten(p_graph) f
  );
exception when sqlstate 'PF101' or sqlstate 'PF103' then
  return sqlerrm;
end $$;

-- The node that an expression builds, as the caller under the caller's search path; the operators are found in any case.
-- Stable, so that the text cannot be a statement that changes something.
create or replace function df._evaluate(p_expression text, p_path text)
returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_node text;
begin
  perform set_config('search_path', concat_ws(', ', nullif(p_path, ''), (
    select quote_ident(n.nspname) from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    where o.oprcode = 'df.seq'::regproc limit 1)), true);
  execute format(E'select (%s\n)::text', p_expression) into v_node;
  return v_node;
end $$;

create or replace function df._explain_instance(p_id text)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_instance df.instances;
  v_nodes jsonb;
  v_output text;
begin
  select * into v_instance from df.instances i where i.id = p_id;
  if not found then
    return format('Instance ''%s'' not found', p_id);
  end if;
  select jsonb_object_agg(n.id,
    jsonb_build_array(n.node_type, n.query, n.result_name, n.left_node, n.right_node, s.inferred_status))
  into v_nodes from df._seen(p_id) s join df._nodes(p_id) n on n.id = s.id;
  v_output := df._output(p_id, v_instance.root_node, v_instance.status);
  return format('Instance: %s', p_id) || coalesce(' (' || v_instance.label || ')', '')
    || E'\nStatus:   ' || df._status_mark(df._status(v_instance))
    || coalesce(E'\nOutput:   ' || v_output, '') || E'\n\n' || df._draw(v_nodes, v_instance.root_node);
end $$;

-- An id, the JSON of a graph, a statement, or an expression that builds a graph.
create or replace function df._explain(p_input text, p_path text)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  c_before constant text := E'^(--[^\n]*\n|/[*].*?[*]/|[[:space:](])*';  -- comments, spaces, parentheses
  v_graph jsonb;
  v_node text;
begin
  if p_input ~ '^[0-9a-fA-F]{8}$' then
    return df._explain_instance(p_input);
  elsif p_input like '{%' then
    begin
      v_graph := p_input::jsonb;
    exception
      when invalid_text_representation or untranslatable_character then null;
      when statement_too_complex then return 'Invalid durable function graph: root: Graph exceeds maximum nesting depth of 256';
    end;
    if v_graph ? 'node_type' then
      return df._draw_graph(v_graph);
    end if;
  end if;
  if p_input collate "C" ~* (c_before || '(select|with|values|table|insert|update|delete|merge|create|alter|drop|call|do|truncate|grant|revoke'
    '|explain|analyze|vacuum|refresh|reindex|cluster|comment|copy|set|reset|show|lock|notify|listen|unlisten|execute)[[:>:]]') then
    return df._draw_graph(jsonb_build_object('node_type', 'SQL', 'query', p_input));
  elsif p_input collate "C" !~* ('~>|[|]=>|[?]>|!>|@>|[[:<:]]df[[:space:]]*[.]|' || c_before || '(e?''|[$])') then
    return E'Cannot explain input: not a valid Durofut JSON, instance ID, SQL statement, or DSL expression.\n'
      'Hint: DSL expressions use df.*() functions and operators like ~>, |=>, &, |.';
  end if;
  v_node := df._evaluate(rtrim(p_input, E'; \t\r\n'), p_path);
  return case when v_node is null then 'Expression returned NULL' else df._draw_graph(df._read_graph(v_node)) end;
end $$;

create or replace function df.explain(input text)
returns text language plpgsql volatile strict as $$
begin
  return df._explain(pg_catalog.btrim(input, E' \t\r\n'), pg_catalog.current_setting('search_path'));
end $$;
