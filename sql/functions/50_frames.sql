-- What a compiled graph calls, as pgflows_run. A run's variables live in pgflows.frames; only the number of a
-- strand's version travels through the graph. Version 0 of the first strand, main, is the input and has no row.
--   take     the strand's variables after node p_seq, with the outcomes of the steps it waited for taken in
--   put      writes the strand's next version, opens the ledger rows of the steps to call, signs the calls
--   finish   takes the run's output
-- All three answer a repeated call as they answered the first, also while the first is still under way (an
-- orchestrator that died may have left its session behind), and refuse runs of other submitters: otherwise they
-- would sign anything for anybody. Functions with an underscore have the search_path of these three: setting it
-- once more would double the cost of a call. The last two versions of a strand are kept, for the repeated call;
-- frames.ret is what put answered where it asked for no steps, else env says it all (@p, the steps that are awaited).
-- An engine of ours calls 55_batches.sql, for many runs at once, before it calls these.

create or replace function pgflows._run_of(p_df_id text)
returns uuid language plpgsql stable as $$
declare
  v_instance uuid;
begin
  select r.instance_id into v_instance from pgflows.df_runs r
  where r.df_id = p_df_id and r.submitted_by = quote_ident(session_user)::regrole;
  if not found then
    raise exception 'run % is unknown, or not one that % submitted', p_df_id, session_user using errcode = 'PF003';
  end if;
  return v_instance;
end $$;

create or replace function pgflows.take(p_df_id text, p_strand text, p_seq integer)
returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows._run_of(p_df_id);
  v_before jsonb;
  v_env jsonb;
  v_step jsonb;
  v_status text;
  v_output jsonb;
  v_failure jsonb;
  v_error jsonb;
begin
  if p_seq = 0 and p_strand = 'main' then  -- where a run begins, with its input
    return (select jsonb_build_object('@in', i.input) from pgflows.instances i where i.instance_id = v_instance);
  end if;
  select f.env into v_before from pgflows.frames f where f.df_id = p_df_id and f.strand = p_strand and f.seq = p_seq;
  if not found then
    raise exception 'run % has no state % of strand %', p_df_id, p_seq, p_strand using errcode = 'PF003';
  end if;
  v_env := v_before - '@p';
  for n in 0 .. coalesce(jsonb_array_length(v_before -> '@p'), 0) - 1 loop
    v_step := v_before -> '@p' -> n;
    select s.status, s.output, s.error into v_status, v_output, v_failure
    from pgflows.step_runs s where s.instance_id = v_instance and s.step_key = v_step ->> 'key';
    if v_status = 'completed' then
      if v_step ? 'var' and v_step ->> 'var' is not null then
        v_env := jsonb_set(v_env, array[v_step ->> 'var'], v_output);
      end if;
    elsif v_status = 'failed' and v_step ->> 'try' = 'true' then
      v_error := coalesce(v_error, v_failure || jsonb_build_object('step_key', v_step -> 'key'));
    elsif v_status = 'failed' then
      raise exception 'step % failed: %: %', v_step ->> 'key', v_failure ->> 'type', v_failure ->> 'message'
        using errcode = 'PF001', detail = (v_failure || jsonb_build_object('step_key', v_step -> 'key'))::text;
    else
      raise exception 'step % has no outcome', v_step ->> 'key'
        using errcode = 'PF002', hint = 'its service was called and did not record one; pgflows.revive starts the run again';
    end if;
  end loop;
  if v_error is not null then
    -- called inside a try: the strand goes on with the completion flag set, and without any of the results
    v_env := (v_before - '@p') || jsonb_build_object('@k', 'raise', '@x', v_error);
  end if;
  return v_env;
end $$;

-- Opens the ledger rows of the steps to call, signed with the key of the day; returns that key where all rows are
-- new. A revived run asks again for what it asked for before: what was recorded stays, and is open to this call.
create or replace function pgflows._ask(p_instance uuid, p_seq integer, p_steps jsonb)
returns pgflows.signing_keys language plpgsql as $$
declare
  v_key pgflows.signing_keys;
  v_new integer;
begin
  select y.* into v_key from pgflows.signing_keys y where y.retired_at is null order by y.created_at desc limit 1;
  insert into pgflows.step_runs (instance_id, step_key, step, seq, key_id, input, retry)
  select p_instance, s ->> 'key', s ->> 'step', p_seq, v_key.key_id, s -> 'input', nullif(s -> 'retry', 'null')
  from jsonb_array_elements(p_steps) s
  on conflict do nothing;
  get diagnostics v_new = row_count;
  if v_new = jsonb_array_length(p_steps) then
    return v_key;
  end if;
  update pgflows.step_runs r set seq = p_seq, key_id = v_key.key_id, requested_at = clock_timestamp()
  from jsonb_array_elements(p_steps) s
  where r.instance_id = p_instance and r.step_key = s ->> 'key';
  return null;
end $$;

create or replace function pgflows.put(
  p_df_id text, p_strand text, p_seq integer, p_env jsonb, p_cond boolean, p_steps jsonb
) returns table (c boolean, seq integer, keys jsonb, bodies jsonb, signatures jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows._run_of(p_df_id);
  v_steps integer := case when p_cond then jsonb_array_length(p_steps) else 0 end;
  v_key pgflows.signing_keys;
  v_ret jsonb;
begin
  seq := p_seq + 1;
  if v_steps = 0 then
    v_ret := jsonb_build_object('c', coalesce(p_cond, false), 'k', '[]'::jsonb);
  elsif v_steps = 1 then
    p_env := p_env || jsonb_build_object('@p', jsonb_build_array((p_steps -> 0) - '{input,step,retry}'::text[]));
  else
    select p_env || jsonb_build_object('@p', jsonb_agg(s - '{input,step,retry}'::text[]))
    into p_env from jsonb_array_elements(p_steps) s;
  end if;
  insert into pgflows.frames (df_id, strand, seq, env, ret) values (p_df_id, p_strand, put.seq, p_env, v_ret)
  on conflict do nothing;
  if not found then
    -- the node ran before, perhaps in another session just now: the insert waited for its commit
    select f.env, f.ret into p_env, v_ret from pgflows.frames f
    where f.df_id = p_df_id and f.strand = p_strand and f.seq = put.seq;
  else
    if v_steps > 0 then
      v_key := pgflows._ask(v_instance, put.seq, p_steps);
    end if;
    if p_seq > 1 then
      delete from pgflows.frames f where f.df_id = p_df_id and f.strand = p_strand and f.seq < p_seq;
    end if;
  end if;
  c := coalesce((v_ret ->> 'c')::boolean, true);
  keys := coalesce(v_ret -> 'k', jsonb_path_query_array(p_env, '$."@p"[*].key'));
  if jsonb_array_length(keys) = 0 then
    bodies := '[]';
    signatures := '[]';
  elsif v_steps = 1 and v_key.key_id is not null then
    bodies := jsonb_build_array((p_steps -> 0 -> 'input')::text);
    signatures := jsonb_build_array(pgflows._sign(v_key.key_id, v_key.inner_pad, v_key.outer_pad, p_df_id,
      p_steps -> 0 ->> 'step', p_steps -> 0 ->> 'key', put.seq, bodies ->> 0));
  else
    -- the requests, from the ledger: bodies are the recorded inputs, signed with the recorded keys
    select jsonb_agg(q.body order by q.n),
      jsonb_agg(pgflows._sign(q.key_id, q.inner_pad, q.outer_pad, p_df_id, q.step, q.step_key, put.seq, q.body) order by q.n)
    into bodies, signatures
    from (
      select k.n, s.step_key, s.step, s.input::text as body, y.key_id, y.inner_pad, y.outer_pad
      from jsonb_array_elements_text(keys) with ordinality k(key, n)
      join pgflows.step_runs s on s.instance_id = v_instance and s.step_key = k.key
      join pgflows.signing_keys y on y.key_id = s.key_id
    ) q;
  end if;
  return next;
end $$;

create or replace function pgflows.finish(p_df_id text, p_strand text, p_seq integer, p_output jsonb)
returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgflows.instances i
  set status = 'completed', output = p_output, ended_at = clock_timestamp()
  where i.instance_id = pgflows._run_of(p_df_id) and i.status in ('pending', 'running');
  return p_output;
end $$;

revoke all on function pgflows._run_of, pgflows.take, pgflows._ask, pgflows.put, pgflows.finish from public;
grant execute on function pgflows.take, pgflows.put, pgflows.finish to pgflows_run;
