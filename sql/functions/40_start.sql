-- Starting: pgflows.start is the one way in, for psql, triggers, the HTTP service and everything else.
--   start            (41_submit.sql) runs as pgflows_run, so that the run is submitted by it
--   _open            validates and writes the instance, as the owner; where df is ours it starts the run as well
--   _insert_keyed    the row of a start with an idempotency key
--   _check_start     says what is wrong with a workflow's name, an input or attributes
--   _unshowable      what readers of JSON would give up on
--   _link            ties the orchestrator's id to the instance, as the owner
--   _misfit          what is wrong with an input, as far as SQL can see: types and required fields of the top level

create or replace function pgflows._fits(p_value jsonb, p_schema jsonb, p_definitions jsonb)
returns boolean language sql immutable as $$
  select case
    when p_schema ? '$ref' then
      pgflows._fits(p_value, coalesce(p_definitions -> regexp_replace(p_schema ->> '$ref', '^.*/', ''), '{}'), p_definitions)
    when p_schema ? 'anyOf' then exists (
      select from jsonb_array_elements(p_schema -> 'anyOf') s where pgflows._fits(p_value, s, p_definitions))
    when p_schema ? 'const' then p_value = p_schema -> 'const'
    when p_schema ? 'enum' then p_schema -> 'enum' @> jsonb_build_array(p_value)
    when p_schema ? 'type' then case p_schema ->> 'type'
      when 'integer' then jsonb_typeof(p_value) = 'number' and (p_value #>> '{}')::numeric % 1 = 0
      else jsonb_typeof(p_value) = p_schema ->> 'type'
    end
    else true
  end
$$;

create or replace function pgflows._expected(p_schema jsonb)
returns text language sql immutable as $$
  select coalesce(
    p_schema ->> 'type',
    (select string_agg(coalesce(s ->> 'type', s ->> '$ref', 'a value'), ' or ') from jsonb_array_elements(p_schema -> 'anyOf') s),
    'one of ' || (p_schema ->> 'enum'),
    regexp_replace(p_schema ->> '$ref', '^.*/', ''),
    'a value')
$$;

-- A model that refers to itself stands among the definitions, and the schema is a reference to it.
create or replace function pgflows._resolved(p_schema jsonb)
returns jsonb language sql immutable as $$
  select case when p_schema ? '$ref'
    then p_schema || coalesce(p_schema -> '$defs' -> regexp_replace(p_schema ->> '$ref', '^.*/', ''), '{}') else p_schema end
$$;

create or replace function pgflows._misfit(p_input jsonb, p_schema jsonb)
returns table (field text, problem text, expected text)
language sql immutable as $$
  select null, 'the input must be an object, not ' || coalesce(jsonb_typeof(p_input), 'null'), 'object'
  where jsonb_typeof(p_input) is distinct from 'object'
  union all
  select r, 'required field ' || r || ' is missing', pgflows._expected(p_schema -> 'properties' -> r)
  from jsonb_array_elements_text(p_schema -> 'required') r
  where jsonb_typeof(p_input) = 'object' and not p_input ? r
  union all
  select p.key, 'field ' || p.key || ' is of the wrong type: ' || jsonb_typeof(p_input -> p.key), pgflows._expected(p.value)
  from jsonb_each(case when jsonb_typeof(p_input) = 'object' then coalesce(p_schema -> 'properties', '{}') else '{}' end) p
  where p_input ? p.key and not pgflows._fits(p_input -> p.key, p.value, p_schema -> '$defs')
  union all
  select k, 'field ' || k || ' is not known', 'one of the fields of the model'
  from jsonb_object_keys(case when jsonb_typeof(p_input) = 'object' then p_input else '{}' end) k
  where p_schema -> 'additionalProperties' = 'false' and not coalesce(p_schema -> 'properties', '{}') ? k
$$;

-- Why a value cannot be shown again; null if it can. PostgreSQL stores any depth and any number of digits, but the parsers of
-- most languages give up on them. p_text is the value as text; one of up to 200 bytes needs no look.
create or replace function pgflows._unshowable(p_value jsonb, p_text text)
returns text language plpgsql immutable as $$
begin
  if octet_length(p_text) > 200 and p_value @? 'strict $.**{100} ? (@.type() == "object" || @.type() == "array")' then
    return 'more than 100 levels of nesting';
  elsif octet_length(p_text) > 4000 and p_text ~ '[0-9]{250}' and exists (
      select from jsonb_path_query(p_value, 'strict $.** ? (@.type() == "number")') n
      where length(translate(n::text, '-.', '')) > 4000) then
    return 'a number of more than 4000 digits';
  end if;
  return null;
end $$;

-- Raises if workflow, input or attributes are not in order, and says what is wrong. p_version is the active one, if any.
create or replace function pgflows._check_start(p_workflow text, p_version text, p_input jsonb, p_attributes jsonb)
returns void language plpgsql stable as $$
declare
  v_schema jsonb;
  v_field text;
  v_problem text;
  v_expected text;
  v_size integer := greatest(octet_length(p_input::text), octet_length(p_attributes::text));
  v_fault text := pgflows._unshowable(p_input, p_input::text);
  v_fault_of_attributes text := pgflows._unshowable(p_attributes, p_attributes::text);
  v_most bigint := (select s.value::text::bigint from pgflows.settings s where s.name = 'max_input_bytes');
begin
  select w.input_schema into v_schema from pgflows.workflows w where w.name = p_workflow and w.version = p_version;
  if not found then
    raise exception 'there is no workflow %', p_workflow using errcode = 'PF010',
      detail = jsonb_build_object('workflow', p_workflow),
      hint = 'known workflows: ' || coalesce((select string_agg(w.name, ', ' order by w.name collate "C") from pgflows.workflows w where w.active), 'none');
  elsif v_size > v_most then
    raise exception 'the input of workflow %, or its attributes, has % bytes, more than the limit of %', p_workflow, v_size, v_most
      using errcode = 'PF012', detail = jsonb_build_object('bytes', v_size, 'limit', v_most),
      hint = 'pass a reference to the data, or raise the limit: '
        'update pgflows.settings set value = ''4194304'' where name = ''max_input_bytes''';
  elsif p_attributes is null or jsonb_typeof(p_attributes) <> 'object' then
    raise exception 'attributes must be an object' using errcode = 'PF011', detail = jsonb_build_object('field', 'attributes', 'expected', 'object');
  elsif coalesce(v_fault, v_fault_of_attributes) is not null then
    raise exception '% of workflow % cannot be shown again: %',
      case when v_fault is null then 'attributes' else 'the input' end, p_workflow, coalesce(v_fault, v_fault_of_attributes)
      using errcode = 'PF011',
        detail = jsonb_build_object('workflow', p_workflow, 'field', case when v_fault is null then 'attributes' else 'input' end,
          'expected', 'at most 100 levels of nesting, and numbers of at most 4000 digits'),
        hint = 'pass a reference to the data, or a text that holds it';
  end if;
  select m.field, m.problem, m.expected into v_field, v_problem, v_expected
  from pgflows._misfit(p_input, pgflows._resolved(v_schema)) m limit 1;
  if found then
    raise exception 'the input does not fit workflow %: %', p_workflow, v_problem using errcode = 'PF011',
      detail = jsonb_build_object('workflow', p_workflow, 'field', v_field, 'expected', v_expected),
      hint = 'expected ' || v_expected;
  end if;
end $$;

-- What an idempotency key started before, if it was the same. Volatile: it looks at what has been committed by now.
create or replace function pgflows._started_before(p_workflow text, p_input jsonb, p_key text)
returns uuid language plpgsql volatile as $$
declare
  v_before pgflows.instances;
begin
  select * into v_before from pgflows.instances i where i.workflow = p_workflow and i.idempotency_key = p_key;
  if v_before.input <> p_input then
    raise exception 'idempotency key % started workflow % before with another input', p_key, p_workflow
      using errcode = 'PF013', detail = jsonb_build_object('instance_id', v_before.instance_id, 'idempotency_key', p_key),
      hint = 'use a new key for a new input';
  end if;
  return v_before.instance_id;
end $$;

-- Writes the instance of a keyed start; null if the key was used. It waits for another transaction that uses the key, for a
-- while. What it wrote is remembered for the rest of the transaction, so that start_instance knows whose it is.
create or replace function pgflows._insert_keyed(
  p_workflow text, p_version text, p_input jsonb, p_key text, p_label text, p_attributes jsonb
) returns uuid language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
  v_instance uuid;
begin
  insert into pgflows.instances as i (instance_id, workflow, version, input, label, attributes, idempotency_key, started_by)
  values (pgflows.uuid7(), p_workflow, p_version, p_input, p_label, p_attributes, p_key, session_user)
  on conflict (workflow, idempotency_key) where i.idempotency_key is not null do nothing
  returning i.instance_id into v_instance;
  if v_instance is not null then
    perform set_config('pgflows.keyed_start', v_instance::text, true);
  end if;
  return v_instance;
exception when lock_not_available then
  raise exception 'another transaction, still open, is starting workflow % with idempotency key %', p_workflow, p_key
    using errcode = 'PF015', detail = jsonb_build_object('workflow', p_workflow, 'idempotency_key', p_key),
    hint = 'try again when it has ended; a transaction that starts runs should be short';
end $$;

-- Answers the instance and, if somebody else has to start it, its graph. Called once a start, so each statement and each
-- expression counts: a simple model is checked at once, and what does not pass there is looked at with care.
create or replace function pgflows._open(
  p_workflow text, p_input jsonb, p_key text, p_label text, p_attributes jsonb, out instance_id uuid, out graph text
) language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  v_input text := p_input::text;
  v_attributes text := p_attributes::text;
  v_version text;
  v_prepared bytea;
  v_fits boolean;
  v_df_id text;
  v_run_role constant regrole := 'pgflows_run';
begin
  select w.version, w.prepared, case when w.prepared is null then w.graph end,
    p_input @@ w.plain_input and jsonb_typeof(p_attributes) = 'object'
      and (octet_length(v_input) <= 200 or pgflows._unshowable(p_input, v_input) is null)
      and (octet_length(v_attributes) <= 200 or pgflows._unshowable(p_attributes, v_attributes) is null)
      and greatest(octet_length(v_input), octet_length(v_attributes))
        <= (select s.value::text::bigint from pgflows.settings s where s.name = 'max_input_bytes')
  into v_version, v_prepared, graph, v_fits
  from pgflows.workflows w where w.name = p_workflow and w.active;
  if v_fits is not true then
    perform pgflows._check_start(p_workflow, v_version, p_input, p_attributes);
  end if;
  if p_key is null then
    insert into pgflows.instances (instance_id, workflow, version, input, label, attributes, started_by)
    values (pgflows.uuid7(), p_workflow, v_version, p_input, p_label, p_attributes, session_user)
    returning instances.instance_id into instance_id;
  else
    instance_id := pgflows._insert_keyed(p_workflow, v_version, p_input, p_key, p_label, p_attributes);
  end if;
  if instance_id is null then
    -- the key was used, and the insert waited for the commit
    instance_id := pgflows._started_before(p_workflow, p_input, p_key);
    graph := null;
  elsif v_prepared is not null then
    v_df_id := df._enter(null, v_prepared, null, coalesce(p_label, p_workflow), null, v_run_role);
    insert into pgflows.df_runs (df_id, instance_id, n, submitted_by) values (v_df_id, _open.instance_id, 1, v_run_role);
  end if;
end $$;

create or replace function pgflows._link(p_instance_id uuid, p_df_id text, p_submitted_by name)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into pgflows.df_runs (df_id, instance_id, n, submitted_by)
  select p_df_id, p_instance_id, coalesce(max(r.n), 0) + 1, quote_ident(p_submitted_by)::regrole
  from pgflows.df_runs r where r.instance_id = p_instance_id
$$;

revoke all on function pgflows._unshowable, pgflows._check_start, pgflows._started_before, pgflows._insert_keyed, pgflows._open, pgflows._link from public;
grant execute on function pgflows._open, pgflows._link to pgflows_run;
