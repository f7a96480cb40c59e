-- The number of a strand's node has one name, seq: in frames, in the ledger, in calls and in their headers. A strand is
-- called strand. step_runs.n was the same number again.
alter table pgflows.frames rename column frame to strand;
alter table pgflows.step_runs rename column call to seq;
alter table pgflows.step_runs drop column n;

-- These have parameters of other names now.
drop function if exists pgflows.take(text, text, integer);
drop function if exists pgflows.put(text, text, integer, jsonb, boolean, jsonb);
drop function if exists pgflows.finish(text, text, integer, jsonb);
drop function if exists pgflows._ask(uuid, integer, jsonb);
drop function if exists pgflows.claim_steps(integer, text[], text[], text[], integer[], text[]);
drop function if exists pgflows._sign(text, bytea, bytea, text, text, text, integer, text);

-- Graphs that are stored name the header of a call that holds the number.
update pgflows.workflows set graph = replace(graph, 'X-Pgflows-Call', 'X-Pgflows-Seq');
do $$ begin
  if to_regclass('df._work') is not null then
    update df._graph_nodes set query = replace(query, 'X-Pgflows-Call', 'X-Pgflows-Seq') where query like '%X-Pgflows-Call%';
    update df.nodes n set query = replace(n.query, 'X-Pgflows-Call', 'X-Pgflows-Seq')
    from df._work w where n.instance_id = w.instance_id and n.node_type = 'HTTP' and n.query like '%X-Pgflows-Call%';
  end if;
end $$;
