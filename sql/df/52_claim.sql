-- Taking free instances, reading what is needed to run them, and giving them back.
--   _claim, _release                    take and give back; _release counts what went wrong
--   _load, _load_prepared, _mail        nodes, prepared graphs, signals

-- Due is what was due when the statement began: clock_timestamp() may change within it, so it cannot bound an index scan, and
-- every sleeping instance would be read.
--   p_promise   the engine looks again within 60 ms, as long as it lives
--   calls       the types of nodes that the role may call over HTTP with
-- Claims are committed asynchronously. A claim of a run that something went wrong with is committed at once: if the run takes
-- the server down, its engine must be known.
create or replace function df._claim(p_engine uuid, p_limit integer, p_promise boolean default false)
returns table (
  instance_id text, token uuid, label text, role text, root_node text, prepared bytea,
  vars jsonb, state text, database text, calls text[]
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
    where s.load <= 1 and w.owner is null and exists (select from pgflows.workers e where e.worker_id = p_engine)
      and not exists (
        select from df._work o where o.owner = p_engine and o.failures >= 2
          and o.wake_at > statement_timestamp() - interval '3 s'
      )
    order by w.instance_id limit p_limit for no key update of w skip locked
  ), free as (
    select w.instance_id, w.state from df._work w
    where w.owner is null and w.wake_at <= statement_timestamp() and w.failures < 2
      and exists (select from pgflows.workers e where e.worker_id = p_engine)
    order by w.wake_at limit p_limit - (select count(*) from suspect) for no key update skip locked
  ), due as (
    select * from suspect union all select * from free
  ), taken as (
    update df._work w set owner = p_engine, token = gen_random_uuid(), wake_at = clock_timestamp(),
      state = coalesce(w.state, '{}')
    from due where w.instance_id = due.instance_id
    returning w.instance_id, w.token, w.prepared, w.vars, due.state, w.failures
  )
  select t.instance_id::text, t.token, i.label, r.rolname::text, i.root_node::text, t.prepared,
    t.vars, t.state, i.database, array_remove(array[
      case when has_function_privilege(r.oid, 'df.http(text,text,text,jsonb,integer)'::regprocedure, 'execute') then 'HTTP' end,
      case when has_function_privilege(r.oid, 'df.http_multipart(text,text,jsonb,jsonb,integer)'::regprocedure, 'execute')
        then 'HTTP_MULTIPART' end
    ], null)
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

create or replace function df._load_prepared(p_hash bytea)
returns table (
  id text, node_type text, query text, result_name text, left_node text, right_node text
) language sql stable set search_path = pg_catalog, pg_temp as $$
  select n.id::text, n.node_type, n.query, n.result_name, n.left_node::text, n.right_node::text
  from df._prepared_nodes n where n.hash = p_hash
$$;

-- Signals raised for these instances and not used up, oldest first.
create or replace function df._mail(p_instances text[])
returns table (instance_id text, id bigint, name text, data text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select x.instance_id::text, x.id, x.name, x.data from df._signals x
  where x.instance_id = any (p_instances) order by x.id
$$;

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
  update df.instances i set status = 'running' where i.id = p_instance and i.status = 'pending' and v_failures is not null;
  if v_failures >= 5 and p_reason is not null then
    perform df._give_up(p_instance, p_reason);
  elsif v_failures is not null then
    perform pg_notify('df_work', '');
  end if;
end $$;
