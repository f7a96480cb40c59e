-- Leases of whatever works on its own (engines, and others later), and why a run's graph was started again.

-- worker_id is random and used once, so it fences: a worker that does not find its row any more was declared dead.
create table pgflows.workers (
  worker_id uuid primary key,
  kind text not null,
  started_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- A worker that was not seen for this many seconds is dead.
insert into pgflows.settings values ('dead_after_seconds', '3');

-- What maintenance saw when it started the graph again; null for a start, and for a revival that somebody asked for.
alter table pgflows.df_runs add column reason text;

-- These have other names, owners or parameters now.
drop function if exists pgflows._mirror() cascade;  -- with its trigger
drop function if exists pgflows._df_nodes(text), pgflows._df_executions(text);
drop function if exists pgflows.revive(uuid);
