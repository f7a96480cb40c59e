-- These have other parameters now, or answer in other columns.
drop function if exists df._start_prepared(bytea, text, oid);
drop function if exists df._enter(text, bytea, text, boolean, text, text, oid);
drop function if exists df._run(
  text[], uuid[], text[], text[], boolean[], integer[], text[], text[], text[], text[], text[], text[],
  text[], text[], text[], text[], bigint[], text[], bigint[]);

-- A CHECK is parsed and planned anew by every statement that writes its table: 15 µs each, a seventh of a start. Only our
-- own functions write these tables, with statuses that stand in their text or in the engine's types.
alter table df.instances drop constraint instances_id_check, drop constraint instances_status_check;
alter table df.nodes drop constraint nodes_node_type_check, drop constraint nodes_status_check;

-- Graphs that are started again and again without having been prepared (18_remembered.sql).
create table df._graphs (
  hash bytea primary key,
  calls_http boolean not null,
  created_at timestamptz not null default clock_timestamp()
);
create index graphs_created on df._graphs (created_at);
create table df._graph_nodes (
  hash bytea not null references df._graphs on delete cascade,
  n integer not null,
  node_type text not null,
  query text,
  result_name text,
  left_n integer,
  right_n integer,
  condition_n integer,
  extra_n integer[],
  primary key (hash, n)
);
