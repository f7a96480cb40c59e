-- Running nodes, their checkpoints included.
--   _run    compiled nodes of many instances → _fence, _checkpoint
--   _once   one statement of a user → _checkpoint, _complete

-- Runs compiled nodes (SELECTs that only compute and call pgflows.take, put, finish) of many instances in one
-- transaction as the calling role, with the checkpoints before them and their own.
--   p_text, p_execution, p_end   per entry: the statement, which answers JSON text in one column, its execution id,
--                                whether its end is the instance's
--   p_each                       statements that answer rows of entry and JSON text, for entries of the same shape at
--                                once; one that they leave out, or all if one of them raises, are run one by one
--   c_entry, c_node              the nodes that complete with an entry's result
--   w_*                          checkpoints that ride along
-- An entry answers its result, or the error that it raised; held is false where the claim was lost.
create or replace function df._run(
  p_instance text[], p_token uuid[], p_text text[], p_each text[], p_execution text[], p_end boolean[],
  c_entry integer[], c_node text[],
  w_instance text[], w_node text[], w_status text[], w_result text[], w_execution text[],
  r_instance text[], r_node text[], r_result text[],
  s_instance text[], s_number bigint[], s_state text[], x_signal bigint[]
) returns table (held boolean, result text, error text, code text)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_held text[] := df._fence(p_instance, p_token);
  v_nothing constant text[] := array_fill(null::text, array[cardinality(p_instance)]);
  v_results text[] := v_nothing;
  v_errors text[] := v_nothing;
  v_codes text[] := v_nothing;
  v_each text[];
  v_text text;
  v_entry integer;
  v_result text;
begin
  if cardinality(p_each) > 0 and v_held @> p_instance then
    begin
      foreach v_text in array p_each loop
        for v_entry, v_result in execute v_text loop
          v_results[v_entry] := v_result;
        end loop;
      end loop;
    exception when others then
      v_results := v_nothing;
    end;
  end if;
  if array_position(v_results, null) is not null then
    v_each := v_results;
    begin
      for i in 1 .. cardinality(p_instance) loop
        if v_results[i] is null and p_instance[i] = any (v_held) then
          execute p_text[i] into v_result;
          v_results[i] := v_result;
        end if;
      end loop;
    exception when others then
      -- in subtransactions of their own, which cost more, to find the one that fails
      v_results := v_each;
      for i in 1 .. cardinality(p_instance) loop
        if v_results[i] is null and p_instance[i] = any (v_held) then
          begin
            execute p_text[i] into v_result;
            v_results[i] := v_result;
          exception when others then
            v_errors[i] := sqlerrm; v_codes[i] := sqlstate;
          end;
        end if;
      end loop;
    end;
  end if;
  perform df._checkpoint(
    p_instance, p_token,
    w_instance || done.instances, w_node || done.nodes, w_status || done.statuses,
    w_result || done.results, w_execution || done.executions,
    r_instance, r_node, r_result,
    s_instance => s_instance, s_number => s_number, s_state => s_state,
    s_wake => array_fill(null::float8, array[cardinality(s_instance)]),
    s_signals => array_fill(null::text, array[cardinality(s_instance)]),
    x_signal => x_signal,
    e_instance => done.ended, e_status => array_fill('completed'::text, array[cardinality(done.ended)]),
    e_output => array_fill(null::text, array[cardinality(done.ended)])
  )
  from (
    select coalesce(array_agg(p_instance[c.entry]), '{}') as instances, coalesce(array_agg(c.node), '{}') as nodes,
      coalesce(array_agg('completed'::text), '{}') as statuses, coalesce(array_agg(v_results[c.entry]), '{}') as results,
      coalesce(array_agg(p_execution[c.entry]), '{}') as executions,
      coalesce(array_agg(distinct p_instance[c.entry]) filter (where p_end[c.entry]), '{}') as ended
    from unnest(c_entry, c_node) as c(entry, node)
    where v_results[c.entry] is not null
  ) done;
  return query
  select q.instance = any (v_held), q.result, q.error, q.code
  from unnest(p_instance, v_results, v_errors, v_codes) as q(instance, result, error, code);
end $$;

-- What a session that runs users' statements fixes, again after a RESET: the same as the engine set when it opened it.
-- The commit that follows must be durable, because the next node relies on it.
create or replace function df._fix_settings()
returns void language plpgsql as $$
begin
  set df.in_workflow = 'true';
  set client_connection_check_interval = 1000;
  set idle_in_transaction_session_timeout = 4000;
  set idle_session_timeout = 0;
  set exit_on_error = off;
  set default_transaction_isolation = 'read committed';
  set default_transaction_deferrable = off;
  set standard_conforming_strings = on;
  set extra_float_digits = 1;
  set client_min_messages = warning;
  if pg_catalog.current_setting('synchronous_commit') operator(pg_catalog.=) 'off' then
    set synchronous_commit = on;
  end if;
end $$;

-- Runs one user's statement, wrapped so that it answers its result as JSON text, and writes its checkpoint: effect
-- and record in one transaction and one round trip. Runs as the calling role; raises PF199 where the claim is lost.
--   p_nodes      the nodes that complete with the result; p_keep: jsonb would lose the order of its keys
-- The text needs its role's search_path, so what this function itself uses is qualified. The session is left as a new one.
-- Session-level advisory locks must outlive the commit: the next call releases them.
create or replace function df._once(
  p_text text, p_keep boolean, p_nodes text[], p_execution text, p_end boolean, p_instance text, p_token uuid,
  w_instance text[] default '{}', w_node text[] default '{}', w_status text[] default '{}',
  w_result text[] default '{}', w_execution text[] default '{}',
  r_instance text[] default '{}', r_node text[] default '{}', r_result text[] default '{}',
  s_number bigint default null, s_state text default null, x_signal bigint[] default '{}'
) returns text language plpgsql as $$
declare
  v_result text;
  v_held boolean;
begin
  perform pg_catalog.pg_advisory_unlock_all();  -- of the node before
  execute p_text into v_result;
  set constraints all immediate;  -- triggers that wait for the commit may leave something too
  if s_number is not null or pg_catalog.cardinality(w_node) operator(pg_catalog.+) pg_catalog.cardinality(x_signal) operator(pg_catalog.>) 0 then
    perform df._checkpoint(
      array[p_instance], array[p_token], w_instance, w_node, w_status, w_result, w_execution, r_instance, r_node, r_result,
      s_instance => case when s_number is null then '{}' else array[p_instance] end,
      s_number => case when s_number is null then '{}' else array[s_number] end,
      s_state => case when s_number is null then '{}' else array[s_state] end,
      s_wake => case when s_number is null then '{}' else array[null::float8] end,
      s_signals => case when s_number is null then '{}' else array[null::text] end,
      x_signal => x_signal
    );
  end if;
  v_held := df._complete(p_instance, p_token, p_nodes, v_result, p_keep, p_execution, p_end);
  if not v_held then
    raise exception 'the claim on instance % is lost', p_instance using errcode = 'PF199';
  end if;
  execute 'close all';
  set session authorization default;
  reset all;
  perform df._fix_settings();
  unlisten *;
  discard temp;
  discard sequences;
  return v_result;
end $$;
