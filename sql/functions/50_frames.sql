-- What a compiled graph calls, as pgflows_run. A run's variables live in pgflows.frames; only the number of a
-- strand's version travels through the graph.
--   take     the strand's variables after node p_seq, with the outcomes of the steps it waited for taken in
--   put      writes the strand's next version, opens the ledger rows of the steps to call, signs the calls
--   finish   takes the run's output
-- All three answer a repeated call as they answered the first, also while the first is still under way (an
-- orchestrator that died may have left its session behind), and refuse runs of other submitters: otherwise they
-- would sign anything for anybody. Functions with an underscore have the search_path of these three: setting it
-- once more would double the cost of a call. The last two versions of a strand are kept, for the repeated call.

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

create or replace function pgflows.take(p_df_id text, p_frame text, p_seq integer)
returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows._run_of(p_df_id);
  v_env jsonb;
  v_error jsonb;
  v_awaited record;
begin
  select f.env into v_env from pgflows.frames f where f.df_id = p_df_id and f.frame = p_frame and f.seq = p_seq;
  if not found then
    raise exception 'run % has no state % of strand %', p_df_id, p_seq, p_frame using errcode = 'PF003';
  end if;
  if not v_env ? '@p' then
    return v_env;
  end if;
  for v_awaited in
    select p.value ->> 'key' as key, p.value ->> 'var' as var, p.value ->> 'try' as try, s.status, s.output, s.error
    from jsonb_array_elements(v_env -> '@p') p
    left join pgflows.step_runs s on s.instance_id = v_instance and s.step_key = p.value ->> 'key'
  loop
    if v_awaited.status = 'completed' then
      if v_awaited.var is not null then
        v_env := jsonb_set(v_env, array[v_awaited.var], v_awaited.output);
      end if;
    elsif v_awaited.status = 'failed' and v_awaited.try = 'true' then
      v_error := coalesce(v_error, v_awaited.error || jsonb_build_object('step_key', v_awaited.key));
    elsif v_awaited.status = 'failed' then
      raise exception 'step % failed: %: %', v_awaited.key, v_awaited.error ->> 'type', v_awaited.error ->> 'message'
        using errcode = 'PF001', detail = (v_awaited.error || jsonb_build_object('step_key', v_awaited.key))::text;
    else
      raise exception 'step % has no outcome', v_awaited.key
        using errcode = 'PF002', hint = 'its service was called and did not record one; pgflows.revive starts the run again';
    end if;
  end loop;
  if v_error is not null then
    -- called inside a try: the strand goes on with the completion flag set, and without any of the results
    select f.env || jsonb_build_object('@k', 'raise', '@x', v_error) into v_env
    from pgflows.frames f where f.df_id = p_df_id and f.frame = p_frame and f.seq = p_seq;
  end if;
  return v_env - '@p';
end $$;

-- Opens the ledger rows of the steps to call, signed with the key of the day. A revived run asks again for what
-- it asked for before: what was recorded stays, and is open to this call.
create or replace function pgflows._ask(p_instance uuid, p_call integer, p_steps jsonb)
returns void language plpgsql as $$
declare
  v_key text;
  v_new integer;
begin
  select y.key_id into v_key from pgflows.signing_keys y where y.retired_at is null order by y.created_at desc limit 1;
  insert into pgflows.step_runs (instance_id, step_key, step, n, call, key_id, input, retry)
  select p_instance, s ->> 'key', s ->> 'step', p_call, p_call, v_key, s -> 'input', nullif(s -> 'retry', 'null') from jsonb_array_elements(p_steps) s
  where not exists (select from pgflows.step_runs r where r.instance_id = p_instance and r.step_key = s ->> 'key');
  get diagnostics v_new = row_count;
  if v_new < jsonb_array_length(p_steps) then
    update pgflows.step_runs r set call = p_call, key_id = v_key, requested_at = clock_timestamp()
    from jsonb_array_elements(p_steps) s
    where r.instance_id = p_instance and r.step_key = s ->> 'key';
  end if;
end $$;

create or replace function pgflows.put(
  p_df_id text, p_frame text, p_seq integer, p_env jsonb, p_cond boolean, p_steps jsonb
) returns table (c boolean, seq integer, keys jsonb, bodies jsonb, signatures jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows._run_of(p_df_id);
  v_ret jsonb;
  v_calls boolean;
begin
  seq := p_seq + 1;
  select f.ret into v_ret from pgflows.frames f where f.df_id = p_df_id and f.frame = p_frame and f.seq = put.seq;
  if not found then
    v_calls := p_cond and jsonb_array_length(p_steps) > 0;
    if v_calls then
      select jsonb_build_object('c', true, 'k', jsonb_agg(s -> 'key')),
        p_env || jsonb_build_object('@p', jsonb_agg(s - '{input,step,retry}'::text[]))
      into v_ret, p_env from jsonb_array_elements(p_steps) s;
    else
      v_ret := jsonb_build_object('c', coalesce(p_cond, false), 'k', '[]'::jsonb);
    end if;
    insert into pgflows.frames (df_id, frame, seq, env, ret) values (p_df_id, p_frame, put.seq, p_env, v_ret)
    on conflict do nothing;
    if not found then
      -- another session ran this node meanwhile; the insert waited for its commit
      select f.ret into v_ret from pgflows.frames f where f.df_id = p_df_id and f.frame = p_frame and f.seq = put.seq;
    else
      if v_calls then
        perform pgflows._ask(v_instance, put.seq, p_steps);
      end if;
      delete from pgflows.frames f where f.df_id = p_df_id and f.frame = p_frame and f.seq < p_seq;
    end if;
  end if;
  c := (v_ret ->> 'c')::boolean;
  -- the requests, from the ledger: bodies are the recorded inputs, signed with the recorded keys
  select coalesce(jsonb_agg(q.step_key order by q.n), '[]'), coalesce(jsonb_agg(q.body order by q.n), '[]'),
    coalesce(jsonb_agg(pgflows._sign(q.key_id, q.inner_pad, q.outer_pad, p_df_id, q.step, q.step_key, put.seq, q.body) order by q.n), '[]')
  into keys, bodies, signatures
  from (
    select k.n, s.step_key, s.step, s.input::text as body, y.key_id, y.inner_pad, y.outer_pad
    from jsonb_array_elements_text(v_ret -> 'k') with ordinality k(key, n)
    join pgflows.step_runs s on s.instance_id = v_instance and s.step_key = k.key
    join pgflows.signing_keys y on y.key_id = s.key_id
  ) q;
  return next;
end $$;

create or replace function pgflows.finish(p_df_id text, p_frame text, p_seq integer, p_output jsonb)
returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgflows.instances i
  set status = 'completed', output = p_output, ended_at = clock_timestamp()
  where i.instance_id = pgflows._run_of(p_df_id) and i.status in ('pending', 'running');
  return p_output;
end $$;

revoke all on function pgflows._run_of, pgflows.take, pgflows._ask, pgflows.put, pgflows.finish from public;
grant execute on function pgflows.take, pgflows.put, pgflows.finish to pgflows_run;
