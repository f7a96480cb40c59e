-- How the status of df.instances becomes that of pgflows.instances. pgflows.finish writes completion, the rest is here.
--   _current_run   the run of an instance's graph that counts
--   _sync_status   a trigger, if `df` is ours → _end_run, _error_of
--   sweep          beside the extension, where no trigger of ours may be: called by maintenance, about once a second
-- A run that failed beside the extension is judged first (72_revive.sql).

-- The run of the graph that counts: the newest.
create or replace function pgflows._current_run(p_instance uuid)
returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select r.df_id::text from pgflows.df_runs r where r.instance_id = p_instance order by r.n desc limit 1
$$;

-- Ends an instance that is still open, and the steps that nobody will ask for any more.
create or replace function pgflows._end_run(p_instance uuid, p_status text, p_error jsonb)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update pgflows.instances i set status = p_status, error = p_error, ended_at = clock_timestamp()
  where i.instance_id = p_instance and i.status in ('pending', 'running');
  update pgflows.step_runs s set status = 'cancelled', ended_at = clock_timestamp()
  where s.instance_id = p_instance and s.status in ('requested', 'running');
end $$;

-- The error of a run whose root ended with this text: that of the step that take raised it for, or the text itself.
create or replace function pgflows._error_of(p_instance uuid, p_message text)
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((
    select s.error || jsonb_build_object('step_key', s.step_key) from pgflows.step_runs s
    where s.instance_id = p_instance and s.status = 'failed' and position(format('step %s failed: ', s.step_key) in p_message) > 0
    order by s.ended_at desc limit 1
  ), jsonb_build_object('type', 'FlowFailed', 'message', p_message))
$$;

create or replace function pgflows._sync_status()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid;
  v_error jsonb;
begin
  select r.instance_id into v_instance from pgflows.df_runs r
  where r.df_id = new.id
    and r.n = (select max(o.n) from pgflows.df_runs o where o.instance_id = r.instance_id);
  if not found then
    return null;
  end if;
  if new.status = 'running' then
    update pgflows.instances i set status = 'running' where i.instance_id = v_instance and i.status = 'pending';
    return null;
  end if;
  if new.status = 'failed' then
    select pgflows._error_of(v_instance, n.result #>> '{}') into v_error
    from df.nodes n where n.instance_id = new.id and n.id = new.root_node;
  end if;
  perform pgflows._end_run(v_instance, new.status, v_error);
  return null;
end $$;

-- Rows that somebody holds are left for the next time. Cancelling is a row of pgflows.instances first, so that it is undone
-- with its transaction; here the orchestrator hears of it, and of runs that another has replaced. Answers how many changed.
create or replace function pgflows.sweep()
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_run record;
  v_count integer := 0;
begin
  for v_run in
    with open as materialized (
      select i.instance_id, i.status, pgflows._current_run(i.instance_id) as df_id
      from pgflows.instances i where i.status in ('pending', 'running') and i.status <> 'completed'
    )
    select i.instance_id, s.status
    from pgflows._states_of((select array_agg(o.df_id) from open o)) s
    join open o on o.df_id = s.df_id
    join pgflows.instances i on i.instance_id = o.instance_id and i.status = o.status
    where (s.status = 'running' and o.status = 'pending') or s.status in ('completed', 'cancelled')
    for no key update of i skip locked
  loop
    v_count := v_count + 1;
    if v_run.status = 'running' then
      update pgflows.instances i set status = 'running' where i.instance_id = v_run.instance_id;
    else
      perform pgflows._end_run(v_run.instance_id, v_run.status, case v_run.status when 'cancelled' then
        jsonb_build_object('type', 'Cancelled', 'message', 'cancelled in the orchestrator') end);
    end if;
  end loop;
  for v_run in
    select l.df_id, coalesce(i.error ->> 'message', 'another run took its place') as reason
    from pgflows._live_runs() l(df_id)
    join pgflows.df_runs r on r.df_id = l.df_id
    join pgflows.instances i on i.instance_id = r.instance_id
    where i.status in ('cancelled', 'failed') or r.df_id <> pgflows._current_run(i.instance_id)
  loop
    v_count := v_count + 1;
    perform pgflows._withdraw(v_run.df_id, v_run.reason);
  end loop;
  return v_count;
end $$;

revoke all on function pgflows._current_run, pgflows._end_run, pgflows._error_of, pgflows._sync_status, pgflows.sweep from public;

do $$ begin
  if pgflows.df_is_ours() then
    create or replace trigger pgflows_sync_status after update of status on df.instances
    for each row when (new.status in ('running', 'failed', 'cancelled') and new.status <> old.status)
    execute function pgflows._sync_status();
    -- also where a role's session_replication_role leaves other triggers out
    alter table df.instances enable always trigger pgflows_sync_status;
  end if;
end $$;
