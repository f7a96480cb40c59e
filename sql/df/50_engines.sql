-- The engines that live, and what becomes of a dead one's runs. An engine owns whole instances: a row of df._work with
-- its id as owner and a random token, the fence of that claim. An engine without the token writes nothing.
--   _open_engine, _heartbeat, _close_engine   the engine's own row and the freeing of dead engines' work
--   _free → _progress, _up_since, _give_up    which run to blame for a death, and when to give it up
-- Lock order everywhere: df._work by instance_id, then df.instances, then df.nodes.

create or replace function df._open_engine(p_engine uuid, p_before uuid default null)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if p_before is not null then
    perform df._close_engine(p_before);
  end if;
  perform pgflows.worker_open(p_engine, 'engine');
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
  from df.instances i join df._prepared_nodes t on t.id = i.root_node
  where i.id = p_instance and not exists (select from df.nodes n where n.instance_id = i.id and n.id = i.root_node);
  update df.nodes n set status = 'failed', result = to_jsonb(p_reason), updated_at = clock_timestamp()
  from df.instances i where i.id = p_instance and n.instance_id = p_instance and n.id = i.root_node;
  update df.instances i set status = 'failed', updated_at = clock_timestamp() where i.id = p_instance;
end $$;

-- When the server last came up, perhaps after one of its processes died. A later checkpoint hides that: then no engine that
-- was last seen before the checkpoint is blamed.
create or replace function df._up_since()
returns timestamptz language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return greatest(pg_postmaster_start_time(), (select c.checkpoint_time from pg_control_checkpoint() c));
exception when insufficient_privilege then
  return pg_postmaster_start_time();  -- some hosts keep it to themselves
end $$;

-- Frees what these engines hold. A locked row waits for the next time. What was freed stays running (df._status).
-- p_died: the engines did not end in order, and one of their runs may be the reason. A death counts against the runs that
-- the engine had taken within its last minute and that have made no progress since the death before. _claim hands out
-- runs with two deaths or more a few at a time, so the run that kills is soon alone; its fifth death, or a later one, fails it.
-- No run is blamed if the server recovered from a crash, which engines may have felt as a death. If the server was started
-- anew, engines that live have come back by now (_heartbeat): those that have not are dead.
create or replace function df._free(p_engines uuid[], p_died boolean default false)
returns integer language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_up timestamptz := case when p_died then df._up_since() end;
  v_freed integer;
  v_given_up text[];
begin
  if p_died then
    perform set_config('synchronous_commit', 'on', true);  -- what is counted here must outlive the next crash
  end if;
  with held as materialized (
    select w.instance_id, w.failures, w.progress,
      p_died and (e.last_seen_at > v_up or e.last_seen_at < pg_postmaster_start_time())
        and w.wake_at > e.last_seen_at - interval '1 min' as blamed,
      w.wake_at > e.last_seen_at - interval '10 s' as recent
    from df._work w left join pgflows.workers e on e.worker_id = w.owner
    where w.owner = any (p_engines)
    order by w.instance_id for no key update of w skip locked
  ), counted as (
    select h.*, p.at, case when not h.blamed then h.failures when h.progress = p.at then h.failures + 1 else 1 end as n
    from held h left join lateral (select df._progress(h.instance_id) as at where h.blamed) p on true
  ), judged as (
    select c.*, c.blamed and c.n >= 5 and (c.recent or count(*) filter (where c.blamed and c.n >= 5) over () = 1) as given_up
    from counted c
  ), freed as (
    update df._work w set owner = null, token = null, failures = j.n, wake_at = least(w.wake_at, clock_timestamp()),
      progress = case when j.blamed then j.at else w.progress end
    from judged j where w.instance_id = j.instance_id
    returning w.instance_id::text, j.given_up
  ), begun as (
    update df.instances i set status = 'running' from freed f where i.id = f.instance_id and i.status = 'pending'
  )
  select count(*), array_agg(f.instance_id order by f.instance_id) filter (where f.given_up)
  into v_freed, v_given_up from freed f;
  if v_given_up is not null then
    perform df._give_up(h, 'at least five engines died while they ran this instance, without any progress between')
    from unnest(v_given_up) h;
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
    perform pgflows.worker_close(p_engine);
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
  select b.alive, b.dead into alive, v_dead from pgflows.worker_beat(p_engine) b;
  if v_dead is not null then
    perform df._free(v_dead, p_died => true);
    perform pgflows.worker_close(d) from unnest(v_dead) d where not exists (select from df._work w where w.owner = d);
    delete from df._awake a where a.engine = any (v_dead);
  end if;
  at := clock_timestamp();
  select least(
    (select min(w.wake_at) from df._work w where w.owner is null and w.failures < 2),
    (select min(w.wake_at) from df._work w where w.owner is null and w.failures >= 2)
  ) into due;
  return next;
end $$;
