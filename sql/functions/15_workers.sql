-- Who works here, and whose `df` it is. All of this exists beside the extension pg_durable as well.
--   df_is_ours   true if the schema df is this project's, false if the extension brought it
--   dead_after   how long a worker may be silent
--   worker_open, worker_beat, worker_close   the lease of a process that works on its own
--   lead         asks for the one place of a leader; its session keeps it until it ends
-- A worker chooses a random id, announces it, and beats once a second. Whatever it owns carries that id, or a random
-- token of its own. Step services need no lease: their session holds an advisory lock (60_ledger.sql). The lock is free in
-- the moment of a death, and a step that blocks its process for longer than dead_after does not lose it.

create or replace function pgflows.df_is_ours()
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select not exists (select from pg_extension where extname = 'pg_durable')
$$;

create or replace function pgflows.dead_after()
returns interval language sql stable set search_path = pg_catalog, pg_temp as $$
  select (s.value #>> '{}')::float8 * interval '1 s' from pgflows.settings s where s.name = 'dead_after_seconds'
$$;

create or replace function pgflows.worker_open(p_worker uuid, p_kind text)
returns void language sql set search_path = pg_catalog, pg_temp as $$
  insert into pgflows.workers (worker_id, kind) values (p_worker, p_kind)
  on conflict (worker_id) do update set last_seen_at = clock_timestamp()
$$;

-- `alive` is false if this worker was declared dead: it must stop, and open another lease. `dead` are silent workers of the
-- same kind: the caller frees what they own, then closes their leases. A server that was away has kept nobody from
-- beating before it was back.
create or replace function pgflows.worker_beat(p_worker uuid, out alive boolean, out dead uuid[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_kind text;
begin
  update pgflows.workers w set last_seen_at = clock_timestamp() where w.worker_id = p_worker returning w.kind into v_kind;
  alive := found;
  select array_agg(w.worker_id) into dead from pgflows.workers w
  where w.kind = v_kind and greatest(w.last_seen_at, pg_postmaster_start_time()) < clock_timestamp() - pgflows.dead_after();
end $$;

create or replace function pgflows.worker_close(p_worker uuid)
returns void language sql set search_path = pg_catalog, pg_temp as $$
  delete from pgflows.workers w where w.worker_id = p_worker
$$;

create or replace function pgflows.lead()
returns boolean language sql volatile set search_path = pg_catalog, pg_temp as $$
  select pg_try_advisory_lock(1885824887, 3)
$$;

revoke all on function
  pgflows.df_is_ours, pgflows.dead_after, pgflows.worker_open, pgflows.worker_beat, pgflows.worker_close, pgflows.lead
from public;
