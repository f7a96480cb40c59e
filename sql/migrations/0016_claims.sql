-- Steps are claimed by instance, step key and seq; pgflows.claim_pushes maps what a push names to that.
drop function if exists pgflows.claim_steps(integer, text[], text[], text[], integer[], text[]);

-- How many attempts of a step ended with the death of their process.
alter table pgflows.step_runs add column deaths integer not null default 0;
