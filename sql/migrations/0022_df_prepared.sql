-- One word each: a graph is prepared (registered, kept for ever) or cached (often started as the same text).
alter table df._templates rename to _prepared_graphs;
alter table df._template_nodes rename to _prepared_nodes;
alter table df._graphs rename to _cached_graphs;
alter table df._graph_nodes rename to _cached_nodes;
alter table df._work rename column template to prepared;

-- These have another name now, or answer a column with another name.
drop function if exists df._load_template(bytea);
drop function if exists df._start_apart(text, text, text, oid);
drop function if exists df._claim(uuid, integer, boolean);
