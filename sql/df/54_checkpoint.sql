-- Writing what runs have done.
--   _fence        which claims still hold
--   _checkpoint   node results, ends and parked waits of many instances
--   _complete     the nodes of one instance that complete with one result

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
  v_prepared bytea[];
  v_now timestamptz := clock_timestamp();
  v_new integer := 0;
begin
  if cardinality(p_instance) = 1 and cardinality(s_instance) = 0 and cardinality(e_instance) = 0 then
    -- branches that run side by side need not wait for each other's commits
    select array_agg(h.id), array_agg(h.prepared) into v_held, v_prepared
    from (
      select w.instance_id::text as id, w.prepared from df._work w
      where w.instance_id = p_instance[1] and w.token = p_token[1] for share
    ) h;
  else
    select array_agg(h.id), array_agg(h.prepared) into v_held, v_prepared
    from (
      select w.instance_id::text as id, w.prepared
      from unnest(p_instance, p_token) as c(instance, token)
      join df._work w on w.instance_id = c.instance and w.token = c.token
      order by w.instance_id for no key update of w
    ) h;
  end if;
  if v_held is null then
    return '{}';
  end if;
  -- an instance of a prepared graph gets a node's row when the node is first heard of
  if array_remove(v_prepared, null) <> '{}' then
    insert into df.nodes (id, instance_id, node_type, result_name, left_node, right_node, status, result,
      submitted_by, database, updated_at, status_details)
    select t.id, w.instance, t.node_type, t.result_name, t.left_node, t.right_node, w.status, w.result::jsonb,
      i.submitted_by, i.database, v_now, jsonb_build_object('execution_id', w.execution)
    from (
      select u.*, v_prepared[array_position(v_held, u.instance)] as prepared
      from unnest(w_instance, w_node, w_status, w_result, w_execution) as u(instance, node, status, result, execution)
    ) w
    join df.instances i on i.id = w.instance
    cross join lateral (select * from df._prepared_nodes n where n.hash = w.prepared and n.id = w.node limit 1) t
    where w.prepared is not null
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
