-- Steps are claimed by instance, step key and seq; pgflows.claim_pushes maps what a push names to that.
drop function if exists pgflows.claim_steps(integer, text[], text[], text[], integer[], text[]);
