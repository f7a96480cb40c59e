-- Keeps the figures of df.metrics (0012_counted.sql), a step a minute, called by df._prune. No start and no end of an
-- instance writes a figure: what began before a time, and has ended, is counted once.

create or replace function df._count()
returns void language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
  v_now timestamptz := clock_timestamp();
  v_at pgflows.counted_until;
  v_complete boolean;  -- nothing that began before next_until can appear any more
begin
  select * into v_at from pgflows.counted_until u where u.source = 'df' for update skip locked;
  v_complete := v_at.next_xid <= pg_snapshot_xmin(pg_current_snapshot());
  if v_complete then
    with ended as (
      delete from pgflows.uncounted o using df.instances i
      where o.source = 'df' and i.id = o.id and i.status in ('completed', 'failed', 'cancelled') returning i.status
    )
    insert into pgflows.counted as c (source, workflow, status, n)
    select 'df', '', e.status, count(*) from ended e group by e.status
    on conflict (source, workflow, status) do update set n = c.n + excluded.n;
    insert into pgflows.uncounted (source, id)
    select 'df', i.id from df.instances i
    where i.status in ('pending', 'running') and i.created_at >= v_at.until and i.created_at < v_at.next_until;
    -- what ends from here on is among the uncounted
    insert into pgflows.counted as c (source, workflow, status, n)
    select 'df', '', i.status, count(*) from df.instances i
    where i.created_at >= v_at.until and i.created_at < v_at.next_until
      and i.status in ('completed', 'failed', 'cancelled')
      and not exists (select from pgflows.uncounted o where o.source = 'df' and o.id = i.id)
    group by i.status
    on conflict (source, workflow, status) do update set n = c.n + excluded.n;
  end if;
  if v_at.next_xid is null or v_complete then
    update pgflows.counted_until u
    set until = coalesce(u.next_until, u.until), next_until = v_now - interval '10 s', next_xid = pg_current_xact_id()
    where u.source = v_at.source;
  end if;
end $$;

-- Of instances that are being deleted.
create or replace function df._uncount(p_ids text[])
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update pgflows.counted c set n = c.n - gone.n
  from (
    select i.status, count(*) as n from df.instances i, pgflows.counted_until u
    where i.id = any (p_ids) and u.source = 'df' and i.created_at < u.until
      and not exists (select from pgflows.uncounted o where o.source = 'df' and o.id = i.id)
    group by i.status
  ) gone
  where c.source = 'df' and c.status = gone.status;
  delete from pgflows.uncounted o where o.source = 'df' and o.id = any (p_ids);
end $$;

-- Of all roles, so it has a grant of its own. Events are estimated: nodes are not worth counting.
create or replace function df.metrics()
returns table (
  total_instances bigint, running_instances bigint, completed_instances bigint, failed_instances bigint,
  total_executions bigint, total_events bigint
) language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set enable_seqscan = off set jit = off set max_parallel_workers_per_gather = 0 as $$
begin
  return query
  select sum(f.n)::bigint, coalesce(sum(f.n) filter (where f.status in ('pending', 'running')), 0)::bigint,
    coalesce(sum(f.n) filter (where f.status = 'completed'), 0)::bigint,
    coalesce(sum(f.n) filter (where f.status = 'failed'), 0)::bigint, sum(f.n)::bigint,
    (select greatest(c.reltuples, 0)::bigint from pg_class c where c.oid = 'df.nodes'::regclass)
  from (
    select '' as status, 0 as n
    union all
    select c.status, c.n from pgflows.counted c where c.source = 'df'
    union all
    select i.status, count(*) from pgflows.uncounted o join df.instances i on i.id = o.id where o.source = 'df' group by i.status
    union all
    select i.status, count(*) from df.instances i
    where i.created_at >= (select u.until from pgflows.counted_until u where u.source = 'df') group by i.status
  ) f;
end $$;
