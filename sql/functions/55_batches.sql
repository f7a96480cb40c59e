-- take, put and finish (50_frames.sql) for many runs at once, as an engine of ours batches compiled nodes of the same
-- text. They know the first strand only, one step at a time, and only what happens the first time that a node runs:
--   take_each    leaves out a run for which take would raise, or that this session's role did not submit
--   put_each     raises where the node ran before, or its step was asked for before (23505)
--   finish_each  leaves out a run that this session's role did not submit
-- What they leave out or refuse is for take, put and finish, one by one. `n` numbers the entries of the first arrays.

create or replace function pgflows.take_each(p_df_id text[], p_seq integer[])
returns table (n integer, v jsonb) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query
  select q.n::integer, case
    when q.seq = 0 then jsonb_build_object('@in', i.input)
    when f.env -> '@p' -> 0 ->> 'var' is null then f.env - '@p'
    else (f.env - '@p') || jsonb_build_object(f.env -> '@p' -> 0 ->> 'var', s.output)
  end
  from unnest(p_df_id, p_seq) with ordinality q(df_id, seq, n)
  join pgflows.df_runs r on r.df_id = q.df_id and r.submitted_by = quote_ident(session_user)::regrole
  left join pgflows.instances i on i.instance_id = case when q.seq = 0 then r.instance_id end
  left join pgflows.frames f on f.df_id = case when q.seq > 0 then q.df_id end and f.strand = 'main' and f.seq = q.seq
  left join pgflows.step_runs s on s.instance_id = r.instance_id and s.step_key = f.env -> '@p' -> 0 ->> 'key'
  where q.seq = 0 or (s.status = 'completed' and jsonb_array_length(f.env -> '@p') = 1);
end $$;

create or replace function pgflows.put_each(p_df_id text[], p_seq integer[], p_n integer[], p_env jsonb[], p_step jsonb[])
returns table (n integer, result text) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_key pgflows.signing_keys;
begin
  select y.* into v_key from pgflows.signing_keys y where y.retired_at is null order by y.created_at desc limit 1;
  return query
  with asked as materialized (
    select q.n, r.df_id, r.instance_id, p_seq[q.n] + 1 as seq, q.env, q.step, q.step ->> 'key' as key, (q.step -> 'input')::text as body
    from unnest(p_n, p_env, p_step) q(n, env, step)
    join pgflows.df_runs r on r.df_id = p_df_id[q.n] and r.submitted_by = quote_ident(session_user)::regrole
  ), framed as (
    insert into pgflows.frames (df_id, strand, seq, env)
    select a.df_id, 'main', a.seq, a.env || jsonb_build_object('@p', jsonb_build_array(a.step - '{input,step,retry}'::text[]))
    from asked a
  ), opened as (
    insert into pgflows.step_runs (instance_id, step_key, step, seq, key_id, input, retry)
    select a.instance_id, a.key, a.step ->> 'step', a.seq, v_key.key_id, a.step -> 'input', nullif(a.step -> 'retry', 'null')
    from asked a
  ), dropped as (
    delete from pgflows.frames f using asked a where f.df_id = a.df_id and f.strand = 'main' and f.seq < a.seq - 1
  )
  select a.n, jsonb_build_object('row_count', 1, 'rows', jsonb_build_array(jsonb_build_object(
    'c', true, 'seq', a.seq, 'key_1', a.key, 'body_1', a.body, 'signature_1',
    pgflows._sign(v_key.key_id, v_key.inner_pad, v_key.outer_pad, a.df_id, a.step ->> 'step', a.key, a.seq, a.body))))::text
  from asked a;
end $$;

create or replace function pgflows.finish_each(p_df_id text[], p_n integer[], p_output jsonb[])
returns table (n integer, result text) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query
  with ended as materialized (
    select q.n, r.instance_id, q.output
    from unnest(p_n, p_output) q(n, output)
    join pgflows.df_runs r on r.df_id = p_df_id[q.n] and r.submitted_by = quote_ident(session_user)::regrole
  ), kept as (
    update pgflows.instances i set status = 'completed', output = e.output, ended_at = clock_timestamp()
    from ended e where i.instance_id = e.instance_id and i.ended_at is null  -- not by status: there is an index on it
  )
  select e.n, jsonb_build_object('row_count', 1, 'rows', jsonb_build_array(jsonb_build_object('output', e.output)))::text
  from ended e;
end $$;

revoke all on function pgflows.take_each, pgflows.put_each, pgflows.finish_each from public;
grant execute on function pgflows.take_each, pgflows.put_each, pgflows.finish_each to pgflows_run;
