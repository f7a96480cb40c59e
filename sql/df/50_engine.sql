-- What an engine process asks of the database. An engine owns whole instances: a row of df._work with its
-- epoch as owner and a random token, the fence of that claim. Who does not hold the token writes nothing.
--   _open_engine, _heartbeat, _close_engine   the engine's own row and the freeing of dead engines' work
--   _claim, _load, _load_template             take free instances and read what is needed to run them
--   _checkpoint                               write node results, ends, parked waits of many instances
--   _run                                      run compiled nodes of many instances, checkpoints included
--   _once, _complete                          run one user's node, checkpoint included
--   _release                                  give a claim back, and count what went wrong
-- Lock order everywhere: df._work by instance_id, then df.instances, then df.nodes.

create or replace function df._open_engine(p_engine uuid, p_before uuid default null)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if p_before is not null then
    perform df._close_engine(p_before);
  end if;
  insert into df._worker_epoch (epoch_id) values (p_engine)
  on conflict (epoch_id) do update set last_seen_at = clock_timestamp();
end $$;

-- How far a run has come: when a node of it last ended.
create or replace function df._progress(p_instance text)
returns timestamptz language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(max(n.updated_at), '-infinity') from df.nodes n
  where n.instance_id = p_instance and n.status in ('completed', 'failed')
$$;

-- Ends a run whose claim the caller has locked, with the reason as the root's error.
create or replace function df._give_up(p_instance text, p_reason text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  delete from df._work w where w.instance_id = p_instance;
  delete from df._signals s where s.instance_id = p_instance;
  insert into df.nodes (id, instance_id, node_type, submitted_by)
  select t.id, i.id, t.node_type, i.submitted_by
  from df.instances i join df._template_nodes t on t.id = i.root_node
  where i.id = p_instance and not exists (select from df.nodes n where n.instance_id = i.id and n.id = i.root_node);
  update df.nodes n set status = 'failed', result = to_jsonb(p_reason), updated_at = clock_timestamp()
  from df.instances i where i.id = p_instance and n.instance_id = p_instance and n.id = i.root_node;
  update df.instances i set status = 'failed', updated_at = clock_timestamp() where i.id = p_instance;
end $$;

-- When the server last came up, perhaps after one of its processes died. Later checkpoints hide that; then nobody who
-- was last seen before them is blamed for anything.
create or replace function df._up_since()
returns timestamptz language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return greatest(pg_postmaster_start_time(), (select c.checkpoint_time from pg_control_checkpoint() c));
exception when insufficient_privilege then
  return pg_postmaster_start_time();  -- some hosts keep it to themselves
end $$;

-- Frees what these engines hold; a locked row waits for the next time. p_died: they did not end in order, which one of
-- their runs may have caused. So a death counts against the runs that the engine had taken within its last minute
-- and that have come no further since the death before. _claim hands out runs with two deaths or more with care, so
-- that the culprit is soon alone when it kills: then the fifth death, or a later one, fails it. Where the server
-- recovered from a crash nobody is blamed for what may be an engine's way of hearing of it; where it was started anew,
-- engines that live have come back by now (_heartbeat), so those that have not died with it.
create or replace function df._free(p_engines uuid[], p_died boolean default false)
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_up timestamptz := case when p_died then df._up_since() end;
  v_freed integer;
  v_hopeless text[];
begin
  if p_died then
    perform set_config('synchronous_commit', 'on', true);  -- what is counted here must outlive the next crash
  end if;
  with held as materialized (
    select w.instance_id, w.failures, w.progress,
      p_died and (e.last_seen_at > v_up or e.last_seen_at < pg_postmaster_start_time())
        and w.wake_at > e.last_seen_at - interval '1 min' as blamed,
      w.wake_at > e.last_seen_at - interval '10 s' as young
    from df._work w left join df._worker_epoch e on e.epoch_id = w.owner
    where w.owner = any (p_engines)
    order by w.instance_id for no key update of w skip locked
  ), counted as (
    select h.*, p.at, case when not h.blamed then h.failures when h.progress = p.at then h.failures + 1 else 1 end as n
    from held h left join lateral (select df._progress(h.instance_id) as at where h.blamed) p on true
  ), judged as (
    select c.*, c.blamed and c.n >= 5 and (c.young or count(*) filter (where c.blamed and c.n >= 5) over () = 1) as hopeless
    from counted c
  ), freed as (
    update df._work w set owner = null, token = null, failures = j.n, wake_at = least(w.wake_at, clock_timestamp()),
      progress = case when j.blamed then j.at else w.progress end
    from judged j where w.instance_id = j.instance_id
    returning w.instance_id::text, j.hopeless
  )
  select count(*), array_agg(f.instance_id order by f.instance_id) filter (where f.hopeless)
  into v_freed, v_hopeless from freed f;
  if v_hopeless is not null then
    perform df._give_up(h, 'at least five engines died while they ran this instance, without any progress between')
    from unnest(v_hopeless) h;
  end if;
  return v_freed;
end $$;

create or replace function df._close_engine(p_engine uuid, p_failed boolean default false)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if df._free(array[p_engine], p_failed) > 0 then
    perform pg_notify('df_work', '');
  end if;
  if not exists (select from df._work where owner = p_engine) then
    delete from df._worker_epoch where epoch_id = p_engine;
  end if;
  delete from df._awake where engine = p_engine;
end $$;

-- Once a second: "I live". Frees what dead engines held (a locked row waits for the next beat; engines have time to come
-- back to a server that was away) and tells the database's time, whether this engine was declared dead meanwhile, and when the next free instance is due.
create or replace function df._heartbeat(p_engine uuid)
returns table (at timestamptz, alive boolean, due timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_dead uuid[];
begin
  update df._worker_epoch set last_seen_at = clock_timestamp() where epoch_id = p_engine;
  alive := found;
  select array_agg(e.epoch_id) into v_dead from df._worker_epoch e
  where greatest(e.last_seen_at, pg_postmaster_start_time()) < clock_timestamp() - df._dead_after();
  if v_dead is not null then
    perform df._free(v_dead, p_died => true);
    delete from df._worker_epoch e where e.epoch_id = any (v_dead)
    and not exists (select from df._work w where w.owner = e.epoch_id);
    delete from df._awake a where a.engine = any (v_dead);
  end if;
  at := clock_timestamp();
  select least(
    (select min(w.wake_at) from df._work w where w.owner is null and w.failures < 2),
    (select min(w.wake_at) from df._work w where w.owner is null and w.failures >= 2)
  ) into due;
  return next;
end $$;

-- By the statement's time: a function that may change in mid-statement, such as clock_timestamp(), cannot bound an
-- index scan, and all that sleep would be looked at.
-- p_promise: the engine looks again within 60 ms, as long as it lives. Claims are committed asynchronously, but for those of
-- runs that something went wrong with: if one of them takes everything down at once, it must be known who had it.
create or replace function df._claim(p_engine uuid, p_limit integer, p_promise boolean default false)
returns table (
  instance_id text, token uuid, label text, role text, root_node text, template bytea,
  vars jsonb, state text, database text
) language sql set search_path = pg_catalog, pg_temp as $$
  with promise as (
    insert into df._awake (engine, until) select p_engine, clock_timestamp() + interval '60 ms' where p_promise
    on conflict (engine) do update set until = excluded.until
  ), suspect as (
    -- a hundred, ten, or one of those that may kill their engine, and no more before it has lived with them for a while
    select w.instance_id, w.state from (
      select d.instance_id, sum(case d.failures when 2 then 0.01 when 3 then 0.1 else 1 end)
        over (order by d.wake_at, d.instance_id rows unbounded preceding) as load
      from (
        select * from df._work d where d.owner is null and d.wake_at <= statement_timestamp() and d.failures >= 2
        order by d.wake_at limit 100
      ) d
    ) s join df._work w on w.instance_id = s.instance_id
    where s.load <= 1 and w.owner is null and exists (select from df._worker_epoch e where e.epoch_id = p_engine)
      and not exists (
        select from df._work o where o.owner = p_engine and o.failures >= 2
          and o.wake_at > statement_timestamp() - interval '3 s'
      )
    order by w.instance_id limit p_limit for no key update of w skip locked
  ), free as (
    select w.instance_id, w.state from df._work w
    where w.owner is null and w.wake_at <= statement_timestamp() and w.failures < 2
      and exists (select from df._worker_epoch e where e.epoch_id = p_engine)
    order by w.wake_at limit p_limit - (select count(*) from suspect) for no key update skip locked
  ), due as (
    select * from suspect union all select * from free
  ), taken as (
    update df._work w set owner = p_engine, token = gen_random_uuid(), wake_at = clock_timestamp(),
      state = coalesce(w.state, '{}')
    from due where w.instance_id = due.instance_id
    returning w.instance_id, w.token, w.template, w.vars, due.state, w.failures
  )
  select t.instance_id::text, t.token, i.label, r.rolname::text, i.root_node::text, t.template,
    t.vars, t.state, i.database
  from taken t
  join df.instances i on i.id = t.instance_id
  left join pg_roles r on r.oid = i.submitted_by
  where t.failures = 0 or set_config('synchronous_commit', 'on', true) is not null
$$;

create or replace function df._load(p_instances text[])
returns table (
  instance_id text, id text, node_type text, query text, result_name text,
  left_node text, right_node text, status text, result text, execution_id text
) language sql stable set search_path = pg_catalog, pg_temp as $$
  select n.instance_id::text, n.id::text, n.node_type, n.query, n.result_name, n.left_node::text,
    n.right_node::text, n.status, coalesce(r.result, n.result::text), n.status_details ->> 'execution_id'
  from df.nodes n
  left join df._results r on r.instance_id = n.instance_id and r.node_id = n.id
  where n.instance_id = any (p_instances)
$$;

create or replace function df._load_template(p_hash bytea)
returns table (
  id text, node_type text, query text, result_name text, left_node text, right_node text
) language sql stable set search_path = pg_catalog, pg_temp as $$
  select n.id::text, n.node_type, n.query, n.result_name, n.left_node::text, n.right_node::text
  from df._template_nodes n where n.hash = p_hash
$$;

-- Signals raised for these instances and not used up, oldest first.
create or replace function df._mail(p_instances text[])
returns table (instance_id text, id bigint, name text, data text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select x.instance_id::text, x.id, x.name, x.data from df._signals x
  where x.instance_id = any (p_instances) order by x.id
$$;

-- Locks the claims that still hold and tells which. The lock keeps others away until the transaction ends.
create or replace function df._fence(p_instance text[], p_token uuid[])
returns text[] language sql security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(held.instance_id), '{}')
  from (
    select w.instance_id::text
    from unnest(p_instance, p_token) as c(instance, token)
    join df._work w on w.instance_id = c.instance and w.token = c.token
    order by w.instance_id for no key update of w
  ) held
$$;

-- Writes for instances whose token still holds, and tells which those are; for others nothing is written.
--   p_instance, p_token      the claims
--   w_*                      a row per node: instance, node, status, result (JSON text), execution id
--   r_*                      results whose column order jsonb would lose, as text
--   e_*                      instances that end: status and, where it is not the root's result, the output
--   s_*                      resume state, the higher number wins; with a wake-up time (seconds since 1970) the
--                            instance is parked: it leaves its engine until then or until one of the signals
--   x_signal                 signals that were used up
-- Any role may call it: without the token of a claim, which no other role can read, it does nothing.
create or replace function df._checkpoint(
  p_instance text[], p_token uuid[],
  w_instance text[] default '{}', w_node text[] default '{}', w_status text[] default '{}',
  w_result text[] default '{}', w_execution text[] default '{}',
  r_instance text[] default '{}', r_node text[] default '{}', r_result text[] default '{}',
  e_instance text[] default '{}', e_status text[] default '{}', e_output text[] default '{}',
  s_instance text[] default '{}', s_number bigint[] default '{}', s_state text[] default '{}',
  s_wake float8[] default '{}', s_signals text[] default '{}', x_signal bigint[] default '{}'
) returns text[] language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  -- as on an engine's own sessions (app/pgflows/db.py): nodes' sessions have the server's settings
  set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
  set join_collapse_limit = 1
as $$
declare
  v_held text[];
  v_templates bytea[];
  v_now timestamptz := clock_timestamp();
  v_new integer := 0;
begin
  if cardinality(p_instance) = 1 and cardinality(s_instance) = 0 and cardinality(e_instance) = 0 then
    -- branches that run side by side need not wait for each other's commits
    select array_agg(h.id), array_agg(h.template) into v_held, v_templates
    from (
      select w.instance_id::text as id, w.template from df._work w
      where w.instance_id = p_instance[1] and w.token = p_token[1] for share
    ) h;
  else
    select array_agg(h.id), array_agg(h.template) into v_held, v_templates
    from (
      select w.instance_id::text as id, w.template
      from unnest(p_instance, p_token) as c(instance, token)
      join df._work w on w.instance_id = c.instance and w.token = c.token
      order by w.instance_id for no key update of w
    ) h;
  end if;
  if v_held is null then
    return '{}';
  end if;
  -- an instance of a prepared graph gets a node's row when the node is first heard of
  if array_remove(v_templates, null) <> '{}' then
    insert into df.nodes (id, instance_id, node_type, result_name, left_node, right_node, status, result,
      submitted_by, database, updated_at, status_details)
    select t.id, w.instance, t.node_type, t.result_name, t.left_node, t.right_node, w.status, w.result::jsonb,
      i.submitted_by, i.database, v_now, jsonb_build_object('execution_id', w.execution)
    from (
      select u.*, v_templates[array_position(v_held, u.instance)] as template
      from unnest(w_instance, w_node, w_status, w_result, w_execution) as u(instance, node, status, result, execution)
    ) w
    join df.instances i on i.id = w.instance
    cross join lateral (select * from df._template_nodes n where n.hash = w.template and n.id = w.node limit 1) t
    where w.template is not null
      and not exists (select from df.nodes n where n.instance_id = w.instance and n.id = w.node);
    get diagnostics v_new = row_count;
  end if;
  if v_new < cardinality(w_node) then
    update df.nodes n
    set status = w.status, result = coalesce(w.result::jsonb, n.result), updated_at = v_now,
      status_details = jsonb_build_object('execution_id', w.execution)
    from unnest(w_instance, w_node, w_status, w_result, w_execution)
      as w(instance, node, status, result, execution)
    where n.instance_id = w.instance and n.id = w.node and w.instance = any (v_held) and n.updated_at <> v_now
      and not (w.status = 'running' and n.status in ('completed', 'failed') and n.status_details ->> 'execution_id' = w.execution);
  end if;
  if cardinality(r_instance) > 0 then
    insert into df._results (instance_id, node_id, result)
    select r.instance, r.node, r.result from unnest(r_instance, r_node, r_result) as r(instance, node, result)
    where r.instance = any (v_held)
    on conflict (instance_id, node_id) do update set result = excluded.result;
  end if;
  if cardinality(s_instance) > 0 then
    update df._work w set state = s.state, state_number = s.number,
      owner = case when s.wake is null then w.owner end,
      token = case when s.wake is null then w.token end,
      wake_at = case
        when s.wake is null then w.wake_at
        when s.signals is not null and exists (
          select from df._signals x where x.instance_id = w.instance_id
            and s.signals::jsonb ? x.name and x.id <> all (x_signal)
        ) then v_now
        when s.wake > 9e12 then 'infinity'
        else to_timestamp(s.wake)
      end
    from unnest(s_instance, s_number, s_state, s_wake, s_signals) as s(instance, number, state, wake, signals)
    where w.instance_id = s.instance and s.instance = any (v_held) and s.number > w.state_number;
  end if;
  if cardinality(x_signal) > 0 then
    delete from df._signals x where x.id = any (x_signal) and x.instance_id = any (v_held);
  end if;
  if cardinality(e_instance) > 0 then
    delete from df._signals x using unnest(e_instance, e_status) as e(instance, status)
    where x.instance_id = e.instance and e.instance = any (v_held) and e.status <> 'running';
    delete from df._work w using unnest(e_instance, e_status) as e(instance, status)
    where w.instance_id = e.instance and e.instance = any (v_held) and e.status <> 'running';
    update df.instances i
    set status = e.status, updated_at = v_now,
      completed_at = case when e.status = 'completed' then v_now end
    from unnest(e_instance, e_status) as e(instance, status)
    where i.id = e.instance and e.instance = any (v_held)
      and i.status <> all (array['completed', 'failed', 'cancelled', e.status]);  -- no index on status may be used here
    if cardinality(array_remove(e_output, null)) > 0 then
      insert into df._results (instance_id, node_id, result)
      select i.id, i.root_node, e.output
      from unnest(e_instance, e_output) as e(instance, output)
      join df.instances i on i.id = e.instance
      where e.output is not null and e.instance = any (v_held)
      on conflict (instance_id, node_id) do update set result = excluded.result;
    end if;
  end if;
  return v_held;
end $$;

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

-- Gives a claim back, for a moment later. p_reason: it failed on this engine by no fault of a node. After five
-- such failures without progress, on whatever engines, the run fails with the reason instead of being tried again.
-- A server that crashed may have forgotten the claim, which was committed asynchronously; it may not forget the failure,
-- and counts it once for a claim.
create or replace function df._release(p_instance text, p_token uuid, p_reason text default null)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_at timestamptz := df._progress(p_instance);
  v_failures integer;
begin
  if p_reason is not null then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  update df._work w
  set owner = null, token = null, blamed = case when p_reason is null then w.blamed else p_token end,
    progress = case when p_reason is null then w.progress else v_at end,
    failures = case when p_reason is null then w.failures when w.progress = v_at then w.failures + 1 else 1 end,
    wake_at = clock_timestamp() + case
      when p_reason is null then interval '0.5 s'
      when w.progress = v_at then interval '1 s' * 2 ^ least(w.failures, 6)
      else interval '1 s'
    end
  where w.instance_id = p_instance
    and (w.token = p_token or (p_reason is not null and w.owner is null and w.blamed is distinct from p_token))
  returning w.failures into v_failures;
  if v_failures >= 5 and p_reason is not null then
    perform df._give_up(p_instance, p_reason);
  elsif found then
    perform pg_notify('df_work', '');
  end if;
end $$;

-- What _checkpoint does where some nodes of one instance complete with one result, and the instance perhaps with them:
-- false where the claim does not hold. It is called once a node, and each statement and expression of it counts. Any role
-- may call it, as _checkpoint: without the token it does nothing.
create or replace function df._complete(
  p_instance text, p_token uuid, p_nodes text[], p_result text, p_keep boolean, p_execution text, p_end boolean
) returns boolean language plpgsql security definer
  set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
  v_count integer;
begin
  if p_end then
    update df.nodes n set status = 'completed', result = p_result::jsonb, updated_at = clock_timestamp(),
      status_details = jsonb_build_object('execution_id', p_execution)
    from (select from df._work w where w.instance_id = p_instance and w.token = p_token for no key update) held
    where n.instance_id = p_instance and n.id = any (p_nodes);
  else
    update df.nodes n set status = 'completed', result = p_result::jsonb, updated_at = clock_timestamp(),
      status_details = jsonb_build_object('execution_id', p_execution)
    from (select from df._work w where w.instance_id = p_instance and w.token = p_token for share) held
    where n.instance_id = p_instance and n.id = any (p_nodes);
  end if;
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_nodes) or p_keep then
    -- the claim is lost, or nodes of a prepared graph have no rows yet, or the text of the result is kept as well
    return cardinality(df._checkpoint(
      array[p_instance], array[p_token],
      array_fill(p_instance, v_size), p_nodes, array_fill('completed'::text, v_size),
      array_fill(p_result, v_size), array_fill(p_execution, v_size),
      case when p_keep then array_fill(p_instance, v_size) else '{}' end,
      case when p_keep then p_nodes else '{}' end,
      case when p_keep then array_fill(p_result, v_size) else '{}' end,
      e_instance => case when p_end then array[p_instance] else '{}' end,
      e_status => case when p_end then array['completed'] else '{}' end,
      e_output => case when p_end then array[null::text] else '{}' end
    )) > 0 from (values (array[cardinality(p_nodes)])) as sizes(v_size);
  elsif p_end then
    with done as (
      delete from df._work w where w.instance_id = p_instance
    ), unheard as (
      delete from df._signals x where x.instance_id = p_instance
    )
    update df.instances i set status = 'completed', updated_at = clock_timestamp(), completed_at = clock_timestamp()
    where i.id = p_instance and i.status <> all (array['completed', 'failed', 'cancelled']);  -- no index on status may be used here
  end if;
  return true;
end $$;

-- Runs one user's statement, wrapped so that it answers its result as JSON text, and writes its checkpoint: effect
-- and record in one transaction and one round trip. Runs as the calling role; raises PF199 where the claim is lost.
--   p_nodes      the nodes that complete with the result; p_keep: jsonb would lose the order of its keys
-- The text needs its role's search_path, so what this function itself uses is qualified. The session is left as a new one,
-- but for locks on its own account (pg_advisory_lock), which must outlive the commit: they are released later.
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
  unlisten *;
  discard temp;
  discard sequences;
  return v_result;
end $$;
