-- pgflows.define: registers a workflow, or its new form under the same name and version. Runs that are under
-- way keep the graph they were started with. The version defined last is the one that pgflows.start takes.

create or replace function pgflows.define(
  p_name text, p_version text, p_graph text, p_definition jsonb,
  p_input_schema jsonb, p_output_schema jsonb, p_checksum text
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_fields text[];
  v_types text[];
  v_required text[] := array(select jsonb_array_elements_text(p_input_schema -> 'required'));
begin
  if p_graph is null or p_definition is null or p_input_schema is null then
    raise exception 'the definition of workflow % lacks a graph, a definition or an input schema', p_name
      using errcode = 'PF020', hint = 'use the file that GET /export/{name}.sql gives';
  end if;
  with plain as (
    select array_agg(p.key order by p.key collate "C") as fields,
      array_agg(case p.value ->> 'type' when 'integer' then null else p.value ->> 'type' end order by p.key collate "C") as types,
      coalesce(bool_and(p.value ->> 'type' in ('string', 'number', 'boolean', 'array', 'object')), false)
        and not p_input_schema ? '$ref' and p_input_schema -> 'additionalProperties' is distinct from 'false' as simple
    from jsonb_each(coalesce(p_input_schema -> 'properties', '{}')) p
  )
  select case when p.simple then p.fields end, case when p.simple then p.types end into v_fields, v_types from plain p;
  update pgflows.workflows set active = false where name = p_name and active and version <> p_version;
  insert into pgflows.workflows
    (name, version, graph, definition, input_schema, output_schema, checksum, required, fields, types)
  values (p_name, p_version, p_graph, p_definition, p_input_schema, p_output_schema, p_checksum, v_required, v_fields, v_types)
  on conflict (name, version) do update
  set active = true, graph = excluded.graph, definition = excluded.definition, input_schema = excluded.input_schema,
    output_schema = excluded.output_schema, checksum = excluded.checksum, required = excluded.required,
    fields = excluded.fields, types = excluded.types, registered_at = clock_timestamp();
  if pgflows.df_is_ours() then
    update pgflows.workflows set prepared = df._prepare(p_graph) where name = p_name and version = p_version;
  end if;
end $$;

revoke all on function pgflows.define from public;

-- A database that has changed from the embedded df to the extension pg_durable, or back: only the former prepares graphs.
do $$ begin
  if pgflows.df_is_ours() then
    update pgflows.workflows w set prepared = df._prepare(w.graph) where w.prepared is null;
  else
    update pgflows.workflows w set prepared = null where w.prepared is not null;
  end if;
end $$;
