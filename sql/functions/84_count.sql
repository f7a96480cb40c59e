-- Keeps the figures of pgflows.ended_counts (0012_counted.sql), a step a minute, called by pgflows.prune. The same as
-- df._count and df._uncount, by the order of ids, which is that of time.

create or replace function pgflows._count()
returns void language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
  v_now timestamptz := clock_timestamp();
  v_at pgflows.counted_until;
  v_complete boolean;  -- nothing that began before next_until can appear any more
  v_from uuid;
  v_to uuid;
begin
  select * into v_at from pgflows.counted_until u where u.source = 'pgflows' for update skip locked;
  v_complete := v_at.next_xid <= pg_snapshot_xmin(pg_current_snapshot());
  if v_complete then
    v_from := pgflows.first_id(v_at.until);
    v_to := pgflows.first_id(v_at.next_until);
    with ended as (
      delete from pgflows.uncounted o using pgflows.instances i
      where o.source = 'pgflows' and i.instance_id = o.id::uuid and i.status in ('completed', 'failed', 'cancelled')
      returning i.workflow, i.status
    )
    insert into pgflows.counted as c (source, workflow, status, n)
    select 'pgflows', e.workflow, e.status, count(*) from ended e group by e.workflow, e.status
    on conflict (source, workflow, status) do update set n = c.n + excluded.n;
    insert into pgflows.uncounted (source, id)
    select 'pgflows', i.instance_id from pgflows.instances i
    where i.status in ('pending', 'running') and i.status <> 'completed' and i.instance_id >= v_from and i.instance_id < v_to;
    -- what ends from here on is among the uncounted
    insert into pgflows.counted as c (source, workflow, status, n)
    select 'pgflows', i.workflow, i.status, count(*) from pgflows.instances i
    where i.instance_id >= v_from and i.instance_id < v_to and i.status in ('completed', 'failed', 'cancelled')
      and not exists (select from pgflows.uncounted o where o.source = 'pgflows' and o.id = i.instance_id::text)
    group by i.workflow, i.status
    on conflict (source, workflow, status) do update set n = c.n + excluded.n;
  end if;
  if v_at.next_xid is null or v_complete then
    update pgflows.counted_until u
    set until = coalesce(u.next_until, u.until), next_until = v_now - interval '10 s', next_xid = pg_current_xact_id()
    where u.source = v_at.source;
  end if;
end $$;

create or replace function pgflows._uncount(p_ids uuid[])
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update pgflows.counted c set n = c.n - gone.n
  from (
    select i.workflow, i.status, count(*) as n from pgflows.instances i, pgflows.counted_until u
    where i.instance_id = any (p_ids) and u.source = 'pgflows' and i.instance_id < pgflows.first_id(u.until)
      and not exists (select from pgflows.uncounted o where o.source = 'pgflows' and o.id = i.instance_id::text)
    group by i.workflow, i.status
  ) gone
  where c.source = 'pgflows' and c.workflow = gone.workflow and c.status = gone.status;
  delete from pgflows.uncounted o where o.source = 'pgflows' and o.id = any (p_ids::text[]);
end $$;

-- Instances that ended, by workflow and status.
create or replace function pgflows.ended_counts()
returns jsonb language plpgsql stable set search_path = pg_catalog, pg_temp
  set enable_seqscan = off set jit = off set max_parallel_workers_per_gather = 0 as $$
declare
  v_from uuid := pgflows.first_id((select u.until from pgflows.counted_until u where u.source = 'pgflows'));
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('workflow', c.workflow, 'status', c.status, 'count', c.n)
      order by c.workflow collate "C", c.status), '[]')
    from (
      select f.workflow, f.status, sum(f.n)::bigint as n
      from (
        select c.workflow, c.status, c.n from pgflows.counted c where c.source = 'pgflows'
        union all
        select i.workflow, i.status, count(*)
        from pgflows.uncounted o join pgflows.instances i on i.instance_id = o.id::uuid
        where o.source = 'pgflows' group by i.workflow, i.status
        union all
        select i.workflow, i.status, count(*) from pgflows.instances i where i.instance_id >= v_from group by i.workflow, i.status
      ) f
      where f.status not in ('pending', 'running') group by f.workflow, f.status
    ) c
    where c.n > 0
  );
end $$;

revoke all on function pgflows._count(), pgflows._uncount(uuid[]), pgflows.ended_counts() from public;
