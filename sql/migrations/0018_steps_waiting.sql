-- Why an engine goes on calling a step: {"reason", "since", "tries"}; null once a service has begun with it.
alter table pgflows.step_runs add column waiting jsonb;
create index step_runs_waiting on pgflows.step_runs (step) where waiting is not null;
