-- Retention of runs, their ledger and their variables; called by maintenance once a minute, until it deletes fewer than
-- p_most. The orchestrator's own instances go too, if `df` is ours; the extension prunes by itself. Definitions and
-- signing keys stay. A locked row is left for the next round, so that nobody waits for a clean-up.

create or replace function pgflows.prune(p_age interval, p_most integer)
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_orchestrated integer := 0;
  v_ids uuid[];
  v_runs text[];
begin
  if pgflows.df_is_ours() then
    v_orchestrated := df._prune(p_age, p_most);
  end if;
  perform pgflows._count();
  -- ids are ordered by time, so the oldest are the first of the primary key
  select array_agg(old.instance_id) into v_ids from (
    select i.instance_id from pgflows.instances i
    where i.created_at < clock_timestamp() - p_age and i.ended_at < clock_timestamp() - p_age
    order by i.instance_id limit p_most for update skip locked
  ) old;
  if v_ids is null then
    return v_orchestrated;
  end if;
  select array_agg(r.df_id) into v_runs from pgflows.df_runs r where r.instance_id = any (v_ids);
  delete from pgflows.frames f where f.df_id = any (v_runs);
  delete from pgflows.df_runs r where r.instance_id = any (v_ids);
  delete from pgflows.attempts a where a.instance_id = any (v_ids);
  delete from pgflows.step_runs s where s.instance_id = any (v_ids);
  perform pgflows._uncount(v_ids);
  delete from pgflows.instances i where i.instance_id = any (v_ids);
  return greatest(cardinality(v_ids), v_orchestrated);
end $$;

revoke all on function pgflows.prune from public;
