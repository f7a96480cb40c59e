-- The ledger, as step services use it: many claims or many records in one call.
--   open_service   announces a service; its session then holds the lock that says it lives
--   claim_steps    may this service run these steps now?
--   claim_pushes   the same for what pushes ask for
--   adopt_steps    what a service still runs when its session was lost and opened anew
--   record_steps   how attempts ended
--   _step_waits    what a step that has not ended waits for, in words
-- Verdicts of a claim: run · completed · failed · running (somebody is at it) · later (its next attempt is not due) ·
-- cancelled · unknown (the run has not asked for this step) · suspect (see below).
--
-- A step can kill the process that runs it, and with it the attempts of its neighbours. A step with two such attempts is a
-- suspect: a service runs up to ten of them at once. From the third on it runs without other suspects. So after a few
-- deaths the step that kills is alone, and its neighbours complete. The fifth death fails the step.

-- pgflows.attempts has a row for each attempt that ended, but not for a first one that went well: the step's own row
-- says all of that, and most steps need no other. This view has a row for every attempt.
create or replace view pgflows.all_attempts as
  select a.instance_id, a.step_key, a.attempt, a.started_at, a.ended_at, a.error_type, a.message, a.traceback
  from pgflows.attempts a
  union all
  select s.instance_id, s.step_key, 1, s.started_at, s.ended_at, null, null, null
  from pgflows.step_runs s
  where s.status = 'completed' and s.attempts = 1 and not exists (
    select from pgflows.attempts a where a.instance_id = s.instance_id and a.step_key = s.step_key and a.attempt = 1);

create or replace function pgflows.open_service(p_base_url text)
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_id integer;
begin
  delete from pgflows.services s
  where s.started_at < clock_timestamp() - interval '1 day' and pg_try_advisory_xact_lock(pgflows.service_lock_class(), s.service_id);
  insert into pgflows.services (base_url) values (p_base_url) returning service_id into v_id;
  insert into pgflows.base_urls (url) values (p_base_url) on conflict (url) do update set registered_at = clock_timestamp();
  perform pg_advisory_lock(pgflows.service_lock_class(), v_id);
  return v_id;
end $$;

-- The weight of a suspect among the ten that a service may run at once.
create or replace function pgflows._suspect_weight(p_deaths integer)
returns integer language sql immutable as $$
  select case when p_deaths < 2 then 0 when p_deaths = 2 then 1 else 10 end
$$;

-- By instance, step key and seq; the name of the step must be the one that the run asked for. p_suspects is the weight of
-- the suspects that this service runs already.
create or replace function pgflows.claim_steps(
  p_service integer, p_suspects integer, p_instance uuid[], p_step_key text[], p_step text[], p_seq integer[]
) returns table (
  ord integer, verdict text, instance_id uuid, attempt integer, output jsonb, error jsonb, retry jsonb, retry_in float8,
  deaths integer, weight integer
) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_now timestamptz := clock_timestamp();
  v_run pgflows.step_runs;
  v_status text;
  v_room integer := 10 - p_suspects;
  v_most_deaths constant integer := 5;
  v_claimed integer[] := '{}';
begin
  -- the common case, all at once: the step was requested, nobody has it, and it is not a suspect
  for ord, instance_id, attempt, retry, deaths in
    update pgflows.step_runs s
    set status = 'running', service_id = p_service, attempts = s.attempts + 1, started_at = coalesce(s.started_at, v_now), retry_at = null,
      waiting = null
    from unnest(p_instance, p_step_key, p_step, p_seq) with ordinality as q(instance_id, step_key, step, seq, n)
    join pgflows.instances i on i.instance_id = q.instance_id and i.status in ('pending', 'running')
    where s.instance_id = q.instance_id and s.step_key = q.step_key and s.step = q.step and s.seq = q.seq
      and s.status = 'requested' and s.deaths < 2 and (s.retry_at is null or s.retry_at <= v_now)
    returning q.n::integer, s.instance_id, s.attempts, s.retry, s.deaths
  loop
    verdict := 'run'; output := null; error := null; retry_in := null;
    v_claimed := v_claimed || ord;
    return next;
  end loop;
  for ord in select g from generate_subscripts(p_instance, 1) g where g <> all (v_claimed) loop
    attempt := null; output := null; error := null; retry := null; retry_in := null; deaths := null; weight := null;
    instance_id := p_instance[ord];
    v_status := (select i.status from pgflows.instances i where i.instance_id = p_instance[ord]);
    select * into v_run from pgflows.step_runs s
    where s.instance_id = p_instance[ord] and s.step_key = p_step_key[ord] and s.step = p_step[ord] and s.seq = p_seq[ord]
    for no key update;
    if not found then
      verdict := 'unknown';
    elsif v_run.status in ('completed', 'failed') then
      verdict := v_run.status; output := v_run.output; error := v_run.error;
    elsif v_status not in ('pending', 'running') or v_run.status = 'cancelled' then
      verdict := 'cancelled';
    elsif v_run.status = 'requested' and v_run.retry_at > v_now then
      verdict := 'later'; retry_in := extract(epoch from v_run.retry_at - v_now);
    elsif v_run.status = 'running' and (v_run.service_id = p_service
        or not pg_try_advisory_xact_lock_shared(pgflows.service_lock_class(), v_run.service_id)) then
      verdict := 'running';
    else
      deaths := v_run.deaths + (v_run.status = 'running')::integer;
      weight := pgflows._suspect_weight(deaths);
      if v_run.status = 'running' then
        -- its service is gone: nobody will record how that attempt ended. It began when the one before it ended.
        insert into pgflows.attempts (instance_id, step_key, attempt, started_at, error_type, message)
        select v_run.instance_id, v_run.step_key, v_run.attempts, greatest(v_run.started_at, max(a.ended_at)), 'ProcessDied',
          'the process that ran this attempt died before it recorded an outcome'
        from pgflows.attempts a where a.instance_id = v_run.instance_id and a.step_key = v_run.step_key
        on conflict do nothing;
      end if;
      if deaths >= v_most_deaths then
        verdict := 'failed';
        error := jsonb_build_object('type', 'ProcessDied', 'message', format(
          'the process that ran this step died %s times, at last with no other suspect in it: the step is not tried again', deaths));
      elsif weight > v_room then
        verdict := 'suspect'; retry_in := 1;
      else
        verdict := 'run';
        v_room := v_room - weight;
      end if;
      update pgflows.step_runs s
      set status = case verdict when 'run' then 'running' when 'failed' then 'failed' else 'requested' end,
        service_id = case verdict when 'run' then p_service end,
        attempts = s.attempts + (verdict = 'run')::integer,
        started_at = coalesce(s.started_at, v_now), retry_at = null, waiting = null,
        deaths = claim_steps.deaths, error = claim_steps.error,
        ended_at = case verdict when 'failed' then v_now end
      where s.instance_id = v_run.instance_id and s.step_key = v_run.step_key
      returning s.attempts, s.retry into attempt, claim_steps.retry;
    end if;
    return next;
  end loop;
end $$;

-- What pushes ask for: the run is named by the orchestrator's id, and the key that signed the push must be the one that
-- the row names. A step that ended more than five minutes ago is closed to pushes, unless a revived run asked since.
create or replace function pgflows.claim_pushes(
  p_service integer, p_suspects integer, p_df_id text[], p_key_id text[], p_step_key text[], p_step text[], p_seq integer[]
) returns table (
  ord integer, verdict text, instance_id uuid, attempt integer, output jsonb, error jsonb, retry jsonb, retry_in float8,
  deaths integer, weight integer
) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_closed_before constant timestamptz := clock_timestamp() - interval '5 minutes';
begin
  return query
  select c.* from pgflows.claim_steps(p_service, p_suspects, array(
    select case when s.ended_at is null or s.status = 'cancelled' or s.ended_at >= v_closed_before
        or (r.n > 1 and s.requested_at > v_closed_before) then s.instance_id end
    from unnest(p_df_id, p_key_id, p_step_key) with ordinality as q(df_id, key_id, step_key, n)
    left join pgflows.df_runs r on r.df_id = q.df_id
    left join pgflows.step_runs s on s.instance_id = r.instance_id and s.step_key = q.step_key and s.key_id = q.key_id
    order by q.n
  ), p_step_key, p_step, p_seq) c;
end $$;

-- After a lost session: the steps that this process still runs under its old id become its own under the new one, unless
-- another service took them over meanwhile. Claims are committed asynchronously, so a server that crashed may have
-- forgotten the last ones: those are made again.
create or replace function pgflows.adopt_steps(
  p_old integer, p_new integer, p_instance uuid[], p_step_key text[], p_attempt integer[]
) returns integer language sql set search_path = pg_catalog, pg_temp as $$
  with mine as (
    update pgflows.step_runs s
    set status = 'running', service_id = p_new, attempts = q.attempt, retry_at = null,
      started_at = coalesce(s.started_at, clock_timestamp())
    from unnest(p_instance, p_step_key, p_attempt) as q(instance_id, step_key, attempt)
    where s.instance_id = q.instance_id and s.step_key = q.step_key and (
      (s.status = 'running' and s.service_id = p_old and s.attempts = q.attempt)
      or (s.status = 'requested' and s.attempts = q.attempt - 1))
    returning 1
  )
  select count(*)::integer from mine
$$;

create or replace function pgflows.record_steps(
  p_service integer, p_instance uuid[], p_step_key text[], p_attempt integer[], p_seconds float8[], p_outcome text[],
  p_output jsonb[], p_error jsonb[], p_error_type text[], p_message text[], p_traceback text[], p_retry_in float8[]
) returns table (ord integer, recorded boolean)
language sql set search_path = pg_catalog, pg_temp as $$
  with given as (
    select * from unnest(p_instance, p_step_key, p_attempt, p_seconds, p_outcome, p_output, p_error, p_error_type, p_message, p_traceback, p_retry_in)
      with ordinality as t(instance_id, step_key, attempt, seconds, outcome, output, error, error_type, message, traceback, retry_in, n)
  ), kept as (
    update pgflows.step_runs s
    set status = case t.outcome when 'retry' then 'running' when 'release' then 'requested' else t.outcome end,
      output = t.output, error = t.error,
      attempts = s.attempts + (t.outcome = 'retry')::integer,
      retry_at = clock_timestamp() + t.retry_in * interval '1 s',
      ended_at = case when t.outcome in ('completed', 'failed') then clock_timestamp() end
    from given t
    where s.instance_id = t.instance_id and s.step_key = t.step_key
      and s.status = 'running' and s.service_id = p_service and s.attempts = t.attempt
    returning t.n, t.instance_id, t.step_key, t.attempt, t.seconds, t.outcome, t.error_type, t.message, t.traceback
  ), noted as (
    insert into pgflows.attempts (instance_id, step_key, attempt, started_at, error_type, message, traceback)
    select k.instance_id, k.step_key, k.attempt, clock_timestamp() - k.seconds * interval '1 s', k.error_type, k.message, k.traceback
    from kept k where k.attempt > 1 or k.outcome <> 'completed'
  )
  select t.n::integer, exists (select from kept k where k.n = t.n) from given t
$$;

-- What history shows of a step that has not ended.
create or replace function pgflows._step_waits(p_step pgflows.step_runs)
returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_url text := (select s.base_url from pgflows.services s where s.service_id = p_step.service_id);
begin
  if p_step.status = 'requested' and p_step.retry_at > clock_timestamp() then
    return format('attempt %s, which is due at %s', p_step.attempts + 1, to_json(p_step.retry_at) #>> '{}');
  elsif p_step.status = 'requested' and p_step.deaths > 1 then
    return format('attempt %s: %s attempts ended with the death of their process, so the step runs with few others or alone',
      p_step.attempts + 1, p_step.deaths);
  elsif p_step.status = 'requested' then
    return format('a call of attempt %s', p_step.attempts + 1);
  elsif p_step.status = 'running' and exists (
      select from pg_locks l join pg_database d on d.oid = l.database
      where d.datname = current_database() and l.locktype = 'advisory' and l.granted and l.objsubid = 2
        and l.classid = pgflows.service_lock_class()::oid and l.objid = p_step.service_id::oid) then
    return format('attempt %s, which runs at %s', p_step.attempts, v_url);
  elsif p_step.status = 'running' then
    return format('the next call: the process of attempt %s (%s) is lost', p_step.attempts, coalesce(v_url, 'long ago'));
  end if;
  return null;
end $$;

revoke all on function pgflows._suspect_weight, pgflows._step_waits, pgflows.open_service, pgflows.claim_steps, pgflows.claim_pushes, pgflows.adopt_steps, pgflows.record_steps from public;
