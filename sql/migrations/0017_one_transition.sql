-- take, put and finish are calls of take_each, put_each and finish_each, which have other parameters now.
drop function if exists pgflows.put(text, text, integer, jsonb, boolean, jsonb);
drop function if exists pgflows.take_each(text[], integer[]);
drop function if exists pgflows.put_each(text[], integer[], integer[], jsonb[], jsonb[]);
drop function if exists pgflows.finish_each(text[], integer[], jsonb[]);
drop function if exists pgflows._run_of(text);
drop function if exists pgflows._ask(uuid, integer, jsonb);
