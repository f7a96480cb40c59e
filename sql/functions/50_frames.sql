-- What compiled graphs call, as pgflows_run, for many runs at once; 55_one_run.sql has the same for one run. The variables
-- of a run live in pgflows.frames, a row per strand and seq; only the seq travels through the graph. The first strand,
-- main, begins at seq 0 with the input of the run, which has no frame.
--   take_each    the variables of strands, with the outcomes of the steps that they waited for taken in
--   put_each     writes the next frames, opens the ledger rows of the steps to call, signs the calls
--   finish_each  stores the outputs of runs
-- They leave out runs of other submitters: otherwise they would sign anything for anybody. take_each also leaves out runs
-- that cannot go on. A repeated call is answered as the first one was, also while the first is still under way: an
-- orchestrator that died may have left its session behind. For that, the last two frames of a strand are kept. A frame's
-- env holds the awaited steps under @p; its ret holds the condition where no step is awaited.
-- `n` numbers the entries of the first arrays. Subqueries with `offset 0` are looked up by their key, row by row, also by a
-- session that planned its statements while the tables were empty, and in a run of thousands of steps.

create or replace function pgflows.take_each(p_df_id text[], p_strand text[], p_seq integer[])
returns table (n integer, v jsonb) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  v_role regrole := quote_ident(session_user)::regrole;
begin
  return query
  select q.n::integer, case
    when i.instance_id is not null then jsonb_build_object('@in', i.input)
    when o.failed is not null then f.env - '@p' || o.failed
    when o.results is not null then f.env - '@p' || o.results
    else f.env - '@p'
  end
  from unnest(p_df_id, p_strand, p_seq) with ordinality q(df_id, strand, seq, n)
  cross join lateral (
    select r.instance_id from pgflows.df_runs r where r.df_id = q.df_id and r.submitted_by = v_role offset 0
  ) r
  left join pgflows.instances i on i.instance_id = case when q.seq = 0 and q.strand = 'main' then r.instance_id end
  left join pgflows.frames f on i.instance_id is null and f.df_id = q.df_id and f.strand = q.strand and f.seq = q.seq
  left join lateral (
    select
      jsonb_object_agg(s.var, s.output) filter (where s.status = 'completed' and s.var is not null) as results,
      -- a step called inside a try: the strand goes on with the completion flag set, and without any of the results
      (array_agg(jsonb_build_object('@k', 'raise', '@x', s.error || jsonb_build_object('step_key', s.step_key)))
        filter (where s.status = 'failed'))[1] as failed,
      bool_and(coalesce(s.status = 'completed' or (s.status = 'failed' and s.in_try), false)) as ended
    from (
      select p.step ->> 'var' as var, p.step ->> 'try' = 'true' as in_try, s.*
      from jsonb_array_elements(f.env -> '@p') p(step)
      left join lateral (
        select s.step_key, s.status, s.output, s.error from pgflows.step_runs s
        where s.instance_id = r.instance_id and s.step_key = p.step ->> 'key' offset 0
      ) s on true
    ) s
  ) o on f.env ? '@p'
  where i.instance_id is not null or (f.env is not null and o.ended is not false);
end $$;

create or replace function pgflows.put_each(
  p_df_id text[], p_strand text[], p_seq integer[], p_n integer[], p_env jsonb[], p_condition boolean[], p_steps jsonb[]
) returns table (n integer, c boolean, seq integer, keys text[], bodies text[], signatures text[])
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  v_key_id text := (select y.key_id from pgflows.signing_keys y where y.retired_at is null order by y.created_at desc limit 1);
  v_role regrole := quote_ident(session_user)::regrole;
  v_n integer[];
  v_instance uuid[];
begin
  with asked as (
    select q.n, p_df_id[q.n] as df_id, r.instance_id, p_strand[q.n] as strand, p_seq[q.n] + 1 as seq, q.env, coalesce(q.condition, false) as condition,
      case when q.condition then q.steps else '[]' end as steps
    from unnest(p_n, p_env, p_condition, p_steps) q(n, env, condition, steps)
    cross join lateral (
      select r.instance_id from pgflows.df_runs r where r.df_id = p_df_id[q.n] and r.submitted_by = v_role offset 0
    ) r
  ), framed as (
    insert into pgflows.frames (df_id, strand, seq, env, ret)
    select a.df_id, a.strand, a.seq,
      case when a.steps = '[]' then a.env else a.env || jsonb_build_object('@p', (
        select jsonb_agg(s.step - '{input,step,retry}'::text[]) from jsonb_array_elements(a.steps) s(step))) end,
      case when a.steps = '[]' then jsonb_build_object('c', a.condition) end
    from asked a
    on conflict do nothing
    returning df_id, strand, seq
  ), opened as (
    -- A revived run asks again for what it asked for before: what was recorded stays, and is open to this call.
    insert into pgflows.step_runs (instance_id, step_key, step, seq, key_id, input, retry)
    select a.instance_id, s.step ->> 'key', s.step ->> 'step', a.seq, v_key_id, s.step -> 'input', nullif(s.step -> 'retry', 'null')
    from framed f
    join asked a on a.df_id = f.df_id and a.strand = f.strand and a.seq = f.seq
    cross join lateral jsonb_array_elements(a.steps) s(step)
    on conflict (instance_id, step_key) do update
    set seq = excluded.seq, key_id = excluded.key_id, requested_at = clock_timestamp()
  ), dropped as (
    delete from pgflows.frames d using framed f
    where d.df_id = f.df_id and d.strand = f.strand and d.seq < f.seq - 1
  )
  select array_agg(a.n), array_agg(a.instance_id) into v_n, v_instance from asked a;
  -- The answer is what is stored now, whoever stored it: an insert that met another session's waited for its commit.
  return query
  select q.n, coalesce((f.ret ->> 'c')::boolean, true), f.seq, o.keys, o.bodies, o.signatures
  from unnest(v_n, v_instance) q(n, instance_id)
  cross join lateral (
    select f.* from pgflows.frames f
    where f.df_id = p_df_id[q.n] and f.strand = p_strand[q.n] and f.seq = p_seq[q.n] + 1 offset 0
  ) f
  cross join lateral (
    select array_agg(s.step_key) as keys, array_agg(s.body) as bodies,
      array_agg(pgflows._sign(s.key_id, s.inner_pad, s.outer_pad, f.df_id, s.step, s.step_key, f.seq, s.body)) as signatures
    from jsonb_array_elements(f.env -> '@p') p(step)
    cross join lateral (
      select s.step_key, s.step, s.key_id, s.input::text as body, y.inner_pad, y.outer_pad
      from pgflows.step_runs s join pgflows.signing_keys y on y.key_id = s.key_id
      where s.instance_id = q.instance_id and s.step_key = p.step ->> 'key' offset 0
    ) s
  ) o;
end $$;

create or replace function pgflows.finish_each(p_df_id text[], p_n integer[], p_output jsonb[])
returns table (n integer, output jsonb) language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  v_role regrole := quote_ident(session_user)::regrole;
begin
  return query
  with ended as materialized (
    select q.n, r.instance_id, q.output
    from unnest(p_n, p_output) q(n, output)
    cross join lateral (
      select r.instance_id from pgflows.df_runs r where r.df_id = p_df_id[q.n] and r.submitted_by = v_role offset 0
    ) r
  ), stored as (
    update pgflows.instances i set status = 'completed', output = e.output, ended_at = clock_timestamp()
    from ended e where i.instance_id = e.instance_id and i.ended_at is null  -- not by status, which has an index
  )
  select e.n, e.output from ended e;
end $$;

revoke all on function pgflows.take_each, pgflows.put_each, pgflows.finish_each from public;
grant execute on function pgflows.take_each, pgflows.put_each, pgflows.finish_each to pgflows_run;
