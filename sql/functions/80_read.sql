-- What the HTTP API, the client and the commands read of instances and workflows.
--   get_instance, list_instances, history      GET /instances…; an instance is named by its uuid or any of its df ids
--   has_ended                                  asked again and again by a caller that waits for the end
--   list_workflows, get_workflow               GET /workflows…
--   workflow_checksum                          asked by a service that starts
-- Answers are jsonb documents, so that one statement is one answer. All of it is for the owner alone.

-- The instance that a text names: its uuid or the df id of one of its runs. PF014 if there is none.
create or replace function pgflows._find_instance(p_id text)
returns uuid language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid;
begin
  if p_id ~ '^[0-9a-f]{8}$' then
    select r.instance_id into v_instance from pgflows.df_runs r where r.df_id = p_id;
  elsif p_id collate "C" ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then
    select i.instance_id into v_instance from pgflows.instances i where i.instance_id = p_id::uuid;
  end if;
  if v_instance is null then
    raise exception 'there is no instance %', p_id using errcode = 'PF014',
      detail = jsonb_build_object('id', p_id)::text,
      hint = 'An instance is named by its instance_id (a uuid) or its df_id (eight hex digits).';
  end if;
  return v_instance;
end $$;

-- The embedded engine writes that a run is running only if the run takes a while, yet a run that an engine has claimed is running.
-- The extension's engine writes it at once; the sweep copies it.
create or replace function pgflows._status(p_instance uuid, p_status text)
returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if p_status <> 'pending' or not pgflows.df_is_ours() then
    return p_status;
  end if;
  -- a statement of its own: the extension has no such table
  return case when exists (
    select from pgflows.df_runs r join df._work w on w.instance_id = r.df_id
    where r.instance_id = p_instance and w.owner is not null
  ) then 'running' else p_status end;
end $$;

-- The instances that engines have claimed, for those who look at many.
create or replace function pgflows._claimed()
returns setof uuid language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if pgflows.df_is_ours() then
    return query
    select r.instance_id from df._work w join pgflows.df_runs r on r.df_id = w.instance_id where w.owner is not null;
  end if;
end $$;

-- started_at is when the graph was handed to the orchestrator for the first time.
create or replace function pgflows._instance_document(p_instance uuid)
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object(
    'instance_id', i.instance_id, 'df_id', pgflows._current_run(i.instance_id),
    'workflow', i.workflow, 'version', i.version, 'status', pgflows._status(i.instance_id, i.status),
    'input', i.input, 'output', i.output, 'error', i.error,
    'label', i.label, 'attributes', i.attributes, 'idempotency_key', i.idempotency_key,
    'started_by', i.started_by, 'created_at', i.created_at,
    'started_at', (select min(r.started_at) from pgflows.df_runs r where r.instance_id = i.instance_id),
    'ended_at', i.ended_at
  )
  from pgflows.instances i where i.instance_id = p_instance
$$;

create or replace function pgflows.get_instance(p_id text)
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select pgflows._instance_document(pgflows._find_instance(p_id))
$$;

create or replace function pgflows.has_ended(p_instance uuid)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select i.status in ('completed', 'failed', 'cancelled')
  from pgflows.instances i where i.instance_id = p_instance
$$;

-- One page, newest first, with statuses as _status tells them. A uuid v7 begins with its millisecond, so the primary key is
-- the order of time, and `since` bounds the scan by an id too (a second early, then exactly by created_at). The statement is
-- made for the filters that are given, so that each has its index.
create or replace function pgflows._page(
  p_workflow text, p_status text, p_label text, p_since timestamptz, p_limit integer, p_cursor uuid
) returns setof pgflows.instances language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_filters constant text := concat(
    case when p_workflow is not null then ' and i.workflow = $1' end,
    case when p_label is not null then ' and i.label = $3' end,
    case when p_since is not null then ' and i.instance_id >= pgflows.first_id($4 - interval ''1 s'') and i.created_at >= $4' end,
    case when p_cursor is not null then ' and i.instance_id < $5' end);
  v_rows constant text := '(select i.* from pgflows.instances i where %s' || v_filters || ' order by i.instance_id desc limit $6)';
  v_claimed constant uuid[] := case when p_status in ('pending', 'running') then array(select pgflows._claimed()) end;
begin
  return query execute case p_status
    when 'pending' then format(v_rows, 'i.status = $2 and i.instance_id <> all ($7)')
    when 'running' then format(v_rows, 'i.status = $2') || ' union all '
      || format(v_rows, 'i.status = ''pending'' and i.instance_id = any ($7)') || ' order by instance_id desc limit $6'
    else format(v_rows, case when p_status is null then 'true' else 'i.status = $2' end)
  end
  using p_workflow, p_status, p_label, p_since, p_cursor, p_limit, v_claimed;
end $$;

-- The cursor is the last id of a page.
create or replace function pgflows.list_instances(
  p_workflow text default null, p_status text default null, p_label text default null,
  p_since timestamptz default null, p_limit integer default 100, p_cursor uuid default null
) returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_rows jsonb;
  v_last uuid;
begin
  if p_limit not between 1 and 1000 then
    raise exception 'limit is 1 to 1000, not %', p_limit using errcode = 'PF103',
      detail = '{"field": "limit", "expected": "1 to 1000"}';
  end if;
  select jsonb_agg(jsonb_build_object(
      'instance_id', page.instance_id, 'df_id', pgflows._current_run(page.instance_id),
      'workflow', page.workflow, 'version', page.version,
      'status', pgflows._status(page.instance_id, page.status), 'label', page.label,
      'attributes', page.attributes, 'error', page.error,
      'created_at', page.created_at, 'ended_at', page.ended_at
    ) order by page.k) filter (where page.k <= p_limit),
    case when max(page.k) > p_limit then (array_agg(page.instance_id) filter (where page.k = p_limit))[1] end
  into v_rows, v_last
  from (
    select row_number() over (order by i.instance_id desc) k, i.*
    from pgflows._page(p_workflow, p_status, p_label, p_since, p_limit + 1, p_cursor) i
  ) page;
  return jsonb_build_object('instances', coalesce(v_rows, '[]'), 'next_cursor', v_last);
end $$;

create or replace function pgflows._milliseconds(p_from timestamptz, p_to timestamptz)
returns double precision language sql immutable set search_path = pg_catalog, pg_temp as $$
  select round(extract(epoch from p_to - p_from) * 1000, 3)::double precision
$$;

-- Tracebacks stay in the table: they may hold what a caller of the API should not see.
create or replace function pgflows.history(p_id text)
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows._find_instance(p_id);
  v_df_id text := pgflows._current_run(v_instance);
begin
  return pgflows._instance_document(v_instance) || jsonb_build_object(
    'steps', coalesce((
      select jsonb_agg(jsonb_build_object(
        'step_key', s.step_key, 'step', s.step, 'seq', s.seq, 'status', s.status,
        'input', s.input, 'output', s.output, 'error', s.error,
        'attempt_count', s.attempts,
        'attempts', coalesce((
          select jsonb_agg(jsonb_build_object(
            'attempt', a.attempt, 'started_at', a.started_at, 'ended_at', a.ended_at,
            'duration_ms', pgflows._milliseconds(a.started_at, a.ended_at),
            'error_type', a.error_type, 'message', a.message
          ) order by a.attempt)
          from pgflows.all_attempts a where a.instance_id = s.instance_id and a.step_key = s.step_key
        ), '[]'),
        'requested_at', s.requested_at, 'retry_at', s.retry_at, 'waits_for', pgflows._step_waits(s),
        'waiting', case when s.status in ('requested', 'running') then s.waiting end,
        'started_at', s.started_at, 'ended_at', s.ended_at,
        'duration_ms', pgflows._milliseconds(s.started_at, s.ended_at)
      ) order by s.seq, s.step_key)
      from pgflows.step_runs s where s.instance_id = v_instance
    ), '[]'),
    'runs', coalesce((
      select jsonb_agg(jsonb_build_object('df_id', r.df_id, 'started_at', r.started_at, 'reason', r.reason) order by r.n)
      from pgflows.df_runs r where r.instance_id = v_instance
    ), '[]'),
    'nodes', case when v_df_id is null then '[]' else pgflows._nodes_of(v_df_id) end,
    'executions', case when v_df_id is null then '[]' else pgflows._executions_of(v_df_id) end
  );
end $$;

create or replace function pgflows._workflow_document(p_workflow pgflows.workflows)
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object(
    'name', p_workflow.name, 'version', p_workflow.version, 'checksum', p_workflow.checksum,
    'registered_at', p_workflow.registered_at, 'definition', p_workflow.definition,
    'input_schema', p_workflow.input_schema, 'output_schema', p_workflow.output_schema
  )
$$;

create or replace function pgflows.list_workflows()
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_agg(pgflows._workflow_document(w) order by w.name collate "C"), '[]')
  from pgflows.workflows w where w.active
$$;

create or replace function pgflows.get_workflow(p_name text)
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_document jsonb;
begin
  select pgflows._workflow_document(w) into v_document
  from pgflows.workflows w where w.name = p_name and w.active;
  if v_document is null then
    raise exception 'there is no workflow %', p_name using errcode = 'PF010',
      detail = jsonb_build_object('workflow', p_name)::text;
  end if;
  return v_document;
end $$;

-- The checksum of a registered version, so that a service at its start defines only what has changed.
create or replace function pgflows.workflow_checksum(p_name text, p_version text)
returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select w.checksum from pgflows.workflows w
  where w.name = p_name and w.version = p_version and w.active
$$;

revoke all on function
  pgflows._find_instance(text), pgflows._status, pgflows._claimed, pgflows._instance_document(uuid),
  pgflows.get_instance(text), pgflows.has_ended(uuid),
  pgflows._page, pgflows.list_instances(text, text, text, timestamptz, integer, uuid),
  pgflows._milliseconds(timestamptz, timestamptz), pgflows.history(text),
  pgflows._workflow_document(pgflows.workflows), pgflows.list_workflows(), pgflows.get_workflow(text),
  pgflows.workflow_checksum(text, text)
from public;
