-- What a compiled graph calls for its one run: take, put and finish are calls of take_each, put_each and finish_each
-- (50_frames.sql), and raise where these leave the run out.

-- Says why there is nothing to go on with.
create or replace function pgflows._refuse(p_df_id text, p_strand text, p_seq integer)
returns void language plpgsql stable as $$
declare
  v_instance uuid;
  v_env jsonb;
  v_step jsonb;
  v_failure jsonb;
begin
  select r.instance_id into v_instance from pgflows.df_runs r
  where r.df_id = p_df_id and r.submitted_by = quote_ident(session_user)::regrole;
  if not found then
    raise exception 'run % is unknown, or not one that % submitted', p_df_id, session_user using errcode = 'PF003';
  end if;
  select f.env into v_env from pgflows.frames f where f.df_id = p_df_id and f.strand = p_strand and f.seq = p_seq;
  if not found then
    raise exception 'run % has no frame % of strand %', p_df_id, p_seq, p_strand using errcode = 'PF003';
  end if;
  select p.step, s.error into v_step, v_failure
  from jsonb_array_elements(v_env -> '@p') with ordinality p(step, k)
  left join pgflows.step_runs s on s.instance_id = v_instance and s.step_key = p.step ->> 'key' and s.status in ('completed', 'failed')
  where s.status is null or (s.status = 'failed' and p.step ->> 'try' is distinct from 'true')
  order by p.k limit 1;
  if v_failure is null then
    raise exception 'step % has no outcome', v_step ->> 'key'
      using errcode = 'PF002', hint = 'its service was called and did not record one; pgflows.revive starts the run again';
  end if;
  raise exception 'step % failed: %: %', v_step ->> 'key', v_failure ->> 'type', v_failure ->> 'message'
    using errcode = 'PF001', detail = (v_failure || jsonb_build_object('step_key', v_step -> 'key'))::text;
end $$;

-- Stable, so that what take_each finds and what _refuse finds is of one moment.
create or replace function pgflows.take(p_df_id text, p_strand text, p_seq integer)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_taken jsonb;
begin
  select t.v into v_taken from pgflows.take_each(array[p_df_id], array[p_strand], array[p_seq]) t;
  if not found then
    perform pgflows._refuse(p_df_id, p_strand, p_seq);
  end if;
  return v_taken;
end $$;

create or replace function pgflows.put(
  p_df_id text, p_strand text, p_seq integer, p_env jsonb, p_condition boolean, p_steps jsonb
) returns table (c boolean, seq integer, keys jsonb, bodies jsonb, signatures jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select r.c, r.seq, coalesce(to_jsonb(r.keys), '[]'), coalesce(to_jsonb(r.bodies), '[]'), coalesce(to_jsonb(r.signatures), '[]')
  from pgflows.put_each(array[p_df_id], array[p_strand], array[p_seq], array[1], array[p_env], array[p_condition], array[p_steps]) r;
  if not found then
    perform pgflows._refuse(p_df_id, p_strand, p_seq);
  end if;
end $$;

create or replace function pgflows.finish(p_df_id text, p_strand text, p_seq integer, p_output jsonb)
returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform from pgflows.finish_each(array[p_df_id], array[1], array[p_output]);
  if not found then
    perform pgflows._refuse(p_df_id, p_strand, p_seq);
  end if;
  return p_output;
end $$;

revoke all on function pgflows._refuse, pgflows.take, pgflows.put, pgflows.finish from public;
grant execute on function pgflows.take, pgflows.put, pgflows.finish to pgflows_run;
