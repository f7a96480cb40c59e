-- Engines hold a lease of schema pgflows; df._worker_epoch shows them under the contract's names.
insert into pgflows.workers (worker_id, kind, started_at, last_seen_at)
select e.epoch_id, 'engine', e.started_at, e.last_seen_at from df._worker_epoch e;
drop table df._worker_epoch;
create view df._worker_epoch as
  select w.worker_id as epoch_id, w.started_at, w.last_seen_at from pgflows.workers w where w.kind = 'engine';

-- The limit is a setting now: pgflows.dead_after().
drop function if exists df._dead_after();
