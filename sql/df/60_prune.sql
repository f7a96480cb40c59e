-- Retention: terminal instances are deleted some time after their end, a few at a time, by one engine at a time.
-- A locked row is left for the next round, so that a clean-up keeps no one waiting. Cached graphs go, too.

create or replace function df._prune(p_age interval, p_most integer)
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_ids text[];
begin
  if not pg_try_advisory_xact_lock(1885824887, 1) then
    return 0;
  end if;
  delete from df._cached_graphs g
  where g.hash in (
    select o.hash from df._cached_graphs o where o.created_at < clock_timestamp() - interval '1 hour' limit 2000 for update skip locked
  );
  perform df._count();
  select array_agg(old.id) into v_ids from (
    select i.id from df.instances i
    where i.status in ('completed', 'failed', 'cancelled') and i.created_at < clock_timestamp() - p_age
      and i.updated_at < clock_timestamp() - p_age
    order by i.created_at limit p_most for update skip locked
  ) old;
  if v_ids is null then
    return 0;
  end if;
  perform df._uncount(v_ids);
  delete from df.nodes n where n.instance_id = any (v_ids);
  delete from df._results r where r.instance_id = any (v_ids);
  delete from df._signals s where s.instance_id = any (v_ids);
  delete from df.instances i where i.id = any (v_ids);
  return cardinality(v_ids);
end $$;
