-- Starting a run's graph again, under the same instance: steps that the ledger has answer at once, so only what was
-- interrupted is done again. Nothing here has a state of its own: what a leader did not come to, the next one finds.
--   revive         by hand, for a run that failed or that nobody began; failed steps get their attempts anew
--   failed_runs    runs that the extension gave up or does not know; called by maintenance
--   lost_runs      runs that it lost; called by maintenance
--   judge          one of them: started again, failed, or left until later, which it answers null → _judge_failure
-- The extension fails a run for what our engine waits out: a service that is away, a server that restarts, a retry that is not
-- due. It loses a run whose starting transaction stayed open for more than 5 s.

-- The number of starts in a row after which nothing was recorded.
create or replace function pgflows._most_starts()
returns integer language sql immutable as $$ select 10 $$;

create or replace function pgflows._start_again(p_instance uuid, p_reason text)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_graph text;
  v_label text;
  v_workflow text;
  v_version text;
  v_df_id text;
begin
  select i.workflow, i.version, coalesce(i.label, i.workflow), w.graph into v_workflow, v_version, v_label, v_graph
  from pgflows.instances i left join pgflows.workflows w on w.name = i.workflow and w.version = i.version
  where i.instance_id = p_instance;
  if v_graph is null then
    raise exception 'workflow % version % is not defined any more', v_workflow, v_version using errcode = 'PF010',
      detail = jsonb_build_object('workflow', v_workflow);
  end if;
  v_df_id := pgflows._restart(v_graph, v_label);
  insert into pgflows.df_runs (df_id, instance_id, n, submitted_by, reason)
  select v_df_id, p_instance, coalesce(max(r.n), 0) + 1, 'pgflows_run'::regrole, p_reason
  from pgflows.df_runs r where r.instance_id = p_instance;
  return v_df_id;
end $$;

create or replace function pgflows.revive(p_instance_id uuid)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_status text;
  v_before text := pgflows._current_run(p_instance_id);
  v_df_id text;
begin
  select i.status into v_status from pgflows.instances i where i.instance_id = p_instance_id for update;
  if not found then
    raise exception 'there is no instance %', p_instance_id using errcode = 'PF014', detail = jsonb_build_object('instance_id', p_instance_id);
  end if;
  if v_status not in ('failed', 'pending') then
    raise exception 'instance % is %, only a failed or a pending one can be revived', p_instance_id, v_status
      using errcode = 'PF011', detail = jsonb_build_object('instance_id', p_instance_id, 'status', v_status);
  end if;
  update pgflows.instances i set status = 'pending', error = null, ended_at = null where i.instance_id = p_instance_id;
  update pgflows.step_runs s set status = 'requested', error = null, retry_at = null, ended_at = null, service_id = null, deaths = 0
  where s.instance_id = p_instance_id and s.status in ('failed', 'cancelled');
  v_df_id := pgflows._start_again(p_instance_id, null);
  if v_status = 'pending' then
    perform pgflows._withdraw(v_before, 'revived as ' || v_df_id);
  end if;
  return v_df_id;
end $$;

-- How a failed run goes on. `final`: it does not. Otherwise it may be started again at `due`; `counts` is false if it only
-- waits for a step that somebody works on, or whose next attempt has a time.
create or replace function pgflows._judge_failure(
  p_instance uuid, p_df_id text, p_at timestamptz, out final boolean, out message text, out due timestamptz, out counts boolean
) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_type text;
  v_node jsonb;
  v_step pgflows.step_runs;
begin
  select f.node_type, f.node, f.message into v_type, v_node, message from pgflows._failure_of(p_df_id) f;
  message := coalesce(message, 'the orchestrator failed the run and does not say why');
  due := p_at;
  counts := true;
  select s.* into v_step from pgflows.step_runs s
  where s.instance_id = p_instance and right(message, length(s.step_key) + 21) = format(' step %s has no outcome', s.step_key)
  limit 1;
  if v_step.step_key is not null then
    final := v_step.status = 'failed';
    if v_step.status = 'running' and not pg_try_advisory_xact_lock_shared(pgflows.service_lock_class(), v_step.service_id) then
      counts := false;
      due := 'infinity';
    elsif v_step.retry_at > p_at or v_step.status = 'completed' then
      counts := false;
      due := coalesce(v_step.retry_at, p_at);
    end if;
  elsif v_type like 'HTTP%' then
    final := not coalesce(v_node -> 'headers' ? 'X-Pgflows-Signature', false) or message like 'Blocked:%';
  elsif v_type = 'SQL' and message like 'SQL execution failed: error returned from database: %' then
    -- a step failed, or the statement itself: if not, the next run ends otherwise
    final := pgflows._error_of(p_instance, message) ? 'step_key' or exists (
      select from pgflows.df_runs r where r.df_id = p_df_id and r.reason = message);
  else
    final := false;
  end if;
end $$;

create or replace function pgflows.judge(p_instance uuid, p_lost text default null)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_now timestamptz := clock_timestamp();
  v_df_id text;
  v_state record;
  v_found record;
  v_progress timestamptz;
  v_starts integer;
begin
  perform from pgflows.instances i
  where i.instance_id = p_instance and i.status in ('pending', 'running') for no key update skip locked;
  if not found then
    return null;
  end if;
  v_df_id := pgflows._current_run(p_instance);
  select s.* into v_state from pgflows._states_of(array[v_df_id]) s;
  if v_state.status = 'failed' then
    select f.* into v_found from pgflows._judge_failure(p_instance, v_df_id, v_state.since) f;
  elsif v_state.status is null or (p_lost is not null and v_state.status in ('pending', 'running')) then
    select false as final, coalesce(p_lost, 'the orchestrator does not know run ' || v_df_id) as message, r.started_at as due, true as counts
    into v_found from pgflows.df_runs r where r.df_id = v_df_id;
  else
    return null;
  end if;
  select max(p.at) into v_progress from (
    select greatest(s.started_at, s.ended_at) from pgflows.step_runs s where s.instance_id = p_instance
    union all
    select a.ended_at from pgflows.attempts a where a.instance_id = p_instance
    union all
    select r.started_at from pgflows.df_runs r where r.instance_id = p_instance and r.reason is null
  ) p(at);
  select count(*) into v_starts from pgflows.df_runs r where r.instance_id = p_instance and r.started_at > v_progress;
  if v_found.final then
    perform pgflows._end_run(p_instance, 'failed', pgflows._error_of(p_instance, v_found.message));
    return 'failed: ' || v_found.message;
  elsif v_found.counts and v_starts >= pgflows._most_starts() then
    perform pgflows._end_run(p_instance, 'failed', jsonb_build_object('type', 'FlowFailed',
      'message', format('%s (started again %s times, and nothing was recorded since)', v_found.message, v_starts)));
    return 'failed: ' || v_found.message;
  elsif v_now < v_found.due + v_found.counts::integer * least(2 ^ v_starts, 60) * interval '1 s' then
    return null;
  end if;
  perform pgflows._start_again(p_instance, v_found.message);
  return 'started again: ' || v_found.message;
end $$;

-- Runs that the orchestrator failed, or does not know, and that are open here.
create or replace function pgflows.failed_runs()
returns setof uuid language sql volatile set search_path = pg_catalog, pg_temp as $$
  with open as materialized (
    select i.instance_id, pgflows._current_run(i.instance_id) as df_id
    from pgflows.instances i where i.status in ('pending', 'running') and i.status <> 'completed'
  )
  select o.instance_id
  from open o left join pgflows._states_of((select array_agg(q.df_id) from open q)) s on s.df_id = o.df_id
  where s.status = 'failed' or s.df_id is null
$$;

-- Runs that df.instances has shown with this status for a while, and that have ended nevertheless. The extension opens a
-- session for the question and looks at each run, so it is asked only if there are such runs.
create or replace function pgflows.lost_runs(p_status text)
returns table (instance_id uuid, message text) language sql volatile set search_path = pg_catalog, pg_temp as $$
  with open as materialized (
    select i.instance_id, pgflows._current_run(i.instance_id) as df_id
    from pgflows.instances i where i.status in ('pending', 'running') and i.status <> 'completed'
  ), suspects as materialized (
    select o.instance_id, o.df_id
    from pgflows._states_of((select array_agg(q.df_id) from open q)) s join open o on o.df_id = s.df_id
    where s.status = p_status and s.since < clock_timestamp() - interval '6 s'
  )
  select s.instance_id, u.message
  from pgflows._ended_unseen(p_status) u join suspects s on s.df_id = u.df_id
  where exists (select from suspects)
$$;

revoke all on function
  pgflows._most_starts, pgflows._start_again, pgflows.revive, pgflows._judge_failure, pgflows.judge, pgflows.failed_runs, pgflows.lost_runs
from public;
