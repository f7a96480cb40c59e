-- An engine called steps and got answers that do not say that they are the ledger's: which steps are still to be called?
-- Those that the ledger has open. For each it keeps what came instead of an outcome, until a service begins with the step.
-- What the ledger does not know at all is not a step of any run, and what a service or a claim has locked is noted next time.
create or replace function pgflows.await_steps(p_df_id text[], p_step_key text[], p_reason text[])
returns boolean[] language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  update pgflows.step_runs s set waiting = jsonb_build_object(
    'reason', open.reason, 'since', coalesce(s.waiting -> 'since', to_jsonb(v_now)),
    'tries', coalesce((s.waiting ->> 'tries')::integer, 0) + 1)
  from (
    select r.instance_id, q.step_key, q.reason
    from unnest(p_df_id, p_step_key, p_reason) as q(df_id, step_key, reason)
    join pgflows.df_runs r on r.df_id = q.df_id
    join pgflows.step_runs o on o.instance_id = r.instance_id and o.step_key = q.step_key
    where o.status in ('requested', 'running')
    for no key update of o skip locked
  ) open
  where s.instance_id = open.instance_id and s.step_key = open.step_key;
  return array(
    select exists (
      select from pgflows.df_runs r
      join pgflows.step_runs s on s.instance_id = r.instance_id and s.step_key = q.step_key
      join pgflows.instances i on i.instance_id = r.instance_id
      where r.df_id = q.df_id and s.status in ('requested', 'running') and i.status in ('pending', 'running')
    )
    from unnest(p_df_id, p_step_key) with ordinality as q(df_id, step_key, n) order by q.n
  );
end $$;

revoke all on function pgflows.await_steps from public;
