-- The figures of the database. For the owner alone.
--   stats → open_counts, ended_counts  GET /metrics and /stats; 84_count.sql says how many ended
--   live_engines                       GET /readyz
-- The df schema may be the extension's: it has neither our queue of work nor our leases.

-- Engines: how many live, the age in seconds of the oldest instance that waits for one, and how many wait (10 000 at most).
create or replace function pgflows._engine_stats()
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_ours boolean := pgflows.df_is_ours();
  v_lag double precision;
  v_due integer;
begin
  if v_ours then
    select extract(epoch from clock_timestamp() - min(w.wake_at)) into v_lag
    from df._work w where w.owner is null and w.failures < 2 and w.wake_at <= statement_timestamp();
    select count(*) into v_due from (
      select from df._work w where w.owner is null and w.failures < 2 and w.wake_at <= statement_timestamp() limit 10000
    ) due;
  else
    -- ids are ordered by time
    select extract(epoch from clock_timestamp() - i.created_at) into v_lag
    from pgflows.instances i where i.status = 'pending' and i.status <> 'completed' order by i.instance_id limit 1;
    select count(*) into v_due from (
      select from pgflows.instances i where i.status = 'pending' and i.status <> 'completed' limit 10000
    ) due;
  end if;
  return jsonb_build_object(
    'kind', case when v_ours then 'embedded' else 'extension' end,
    'live', pgflows.live_engines(), 'lag_seconds', coalesce(v_lag, 0), 'due', v_due
  );
end $$;

-- Asked by a load balancer every few seconds. The extension's own lease is hidden; the names of its sessions are not.
create or replace function pgflows.live_engines()
returns integer language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when pgflows.df_is_ours() then (
    select count(*) from pgflows.workers w
    where w.kind = 'engine' and w.last_seen_at > clock_timestamp() - pgflows.dead_after()
  ) else (
    select count(distinct a.datname) from pg_stat_activity a
    where starts_with(a.application_name, 'pg_durable:worker:') and a.datname = df.target_database()
  ) end::integer
$$;

create or replace function pgflows._queue_stats()
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if to_regnamespace('pgmq') is null then
    return '[]';
  end if;
  return coalesce((
    select jsonb_agg(jsonb_build_object(
      'queue', q.queue_name, 'depth', q.queue_length, 'oldest_seconds', q.oldest_msg_age_sec
    ) order by q.queue_name)
    from pgmq.metrics_all() q
  ), '[]');
exception when insufficient_privilege then
  return '[]';
end $$;

create or replace function pgflows._df_stats()
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return (select to_jsonb(m) from df.metrics() m);
exception when insufficient_privilege or undefined_function then
  return null;
end $$;

-- Steps that engines call again and again, because what answers is not the ledger's outcome: 10 000 at most.
create or replace function pgflows.steps_waiting()
returns integer language sql stable set search_path = pg_catalog, pg_temp as $$
  select count(*)::integer from (
    select from pgflows.step_runs s where s.waiting is not null and s.status in ('requested', 'running') limit 10000
  ) w
$$;

-- Instances that are open, by workflow and status. What is open is few, and has an index.
create or replace function pgflows.open_counts()
returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_agg(jsonb_build_object('workflow', c.workflow, 'status', c.status, 'count', c.n)
    order by c.workflow collate "C", c.status), '[]')
  from (
    select i.workflow, case when i.instance_id in (select pgflows._claimed()) then 'running' else i.status end as status,
      count(*) n
    from pgflows.instances i
    where i.status in ('pending', 'running') and i.status <> 'completed' group by 1, 2
  ) c
$$;

-- The figures of a scrape every few seconds; p_totals adds instances that ended.
create or replace function pgflows.stats(p_totals boolean default true)
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return jsonb_build_object(
    'instances', pgflows.open_counts() || case when p_totals then pgflows.ended_counts() else '[]' end,
    'df', case when p_totals then pgflows._df_stats() end,
    'engine', pgflows._engine_stats(),
    'queues', pgflows._queue_stats(),
    'steps_waiting', pgflows.steps_waiting()
  );
end $$;

revoke all on function
  pgflows._engine_stats(), pgflows.steps_waiting(), pgflows._queue_stats(), pgflows._df_stats(),
  pgflows.open_counts(), pgflows.stats(boolean), pgflows.live_engines()
from public;
