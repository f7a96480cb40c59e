-- df._work.failures counts what went wrong with a run since it last made progress: errors of the engine's own code,
-- statements that ended their session, and deaths of the engine that ran it. `progress` is how far it had come then.
alter table df._work add column progress timestamptz;

-- Runs with two failures or more are claimed with care, by an index of their own.
drop index df.work_free;
create index work_free on df._work (wake_at) where owner is null and failures < 2;
create index work_suspect on df._work (wake_at) where owner is null and failures >= 2;

-- These have a parameter more now.
drop function if exists df._free(uuid[]);
drop function if exists df._close_engine(uuid);
