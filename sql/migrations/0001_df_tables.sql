-- The tables of the embedded `df` orchestrator. Skipped where the extension pg_durable is installed.
-- Columns of instances, nodes, vars and _worker_epoch are those of the extension; tables with a leading underscore are ours alone.

create table df.instances (
  id varchar(8) primary key check (id ~ '^[0-9a-f]{8}$'),
  label text,
  root_node varchar(8) not null,
  status text not null default 'pending' check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
  submitted_by regrole not null,
  database text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  completed_at timestamptz,
  unique (id, submitted_by)
) with (fillfactor = 80);
create index instances_created on df.instances (created_at desc, id);
create index instances_label on df.instances (label, created_at desc, id);
create index instances_status on df.instances (status, created_at desc, id);

create table df.nodes (
  id varchar(8) not null,
  instance_id varchar(8) not null,
  node_type text not null check (node_type in
    ('SQL', 'THEN', 'IF', 'LOOP', 'BREAK', 'JOIN', 'RACE', 'SLEEP', 'WAIT_SCHEDULE', 'SIGNAL', 'HTTP', 'HTTP_MULTIPART')),
  query text,
  result_name text,
  left_node varchar(8),
  right_node varchar(8),
  status text not null default 'pending' check (status in ('pending', 'running', 'completed', 'failed')),
  result jsonb,
  error text,
  submitted_by regrole not null,
  database text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  status_details jsonb,
  primary key (instance_id, id)
) with (fillfactor = 60);

create table df.vars (
  name text not null,
  value text not null,
  owner regrole not null,
  primary key (owner, name)
);

-- One row a live engine. A row whose last_seen_at is older than df._dead_after() belongs to a dead one.
create table df._worker_epoch (
  epoch_id uuid primary key,
  started_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- One row a live instance, gone when the instance is terminal. What the contract's columns cannot hold.
--   owner, token  the engine that runs it, and the fence of this claim (both null: free)
--   wake_at       free rows are claimed at or after this time; 'infinity' waits for an event
--   template      hash of a prepared graph (df._templates), so that an engine needs to read its nodes only once
--   state         JSON text of what resuming needs beyond df.nodes
--   failures      how often an engine's own code failed on this run
create table df._work (
  instance_id varchar(8) primary key,
  owner uuid,
  token uuid,
  wake_at timestamptz not null default clock_timestamp(),
  template bytea,
  vars jsonb not null default '{}',
  state text,
  state_number bigint not null default 0,
  failures integer not null default 0
) with (fillfactor = 50);
create index work_free on df._work (wake_at) where owner is null;
create index work_owned on df._work (owner) where owner is not null;

-- Results whose jsonb form would lose the order of columns (`$r` is the first column), as the JSON text they were.
create table df._results (
  instance_id varchar(8) not null,
  node_id varchar(8) not null,
  result text not null,
  primary key (instance_id, node_id)
);

-- Signals that nobody has taken in yet; kept until a node waits for them or the instance ends.
create table df._signals (
  id bigint primary key generated always as identity,
  instance_id varchar(8) not null,
  name text not null,
  data text not null,
  raised_at timestamptz not null default clock_timestamp()
);
create index signals_instance on df._signals (instance_id, id);

-- Graphs that are started often, flattened once: df.start recognises them by the hash of their envelope.
-- An instance of one has a row in df.nodes for each node that was reached; the others, and all texts, are here.
-- (13 rows written twice were two thirds of the WAL of a three-step workflow.) root_node tells which template
-- an instance was started from: no other instance has that root.
create table df._templates (
  hash bytea primary key,
  root_node varchar(8) not null unique,
  calls_http boolean not null default false,
  created_at timestamptz not null default clock_timestamp()
);
create table df._template_nodes (
  hash bytea not null references df._templates on delete cascade,
  id varchar(8) not null,
  node_type text not null,
  query text,
  result_name text,
  left_node varchar(8),
  right_node varchar(8),
  primary key (hash, id)
);

-- df.start hands over by inserting here: submitted_by cannot be given, so it is the true current_user. The trigger keeps no row.
create table df._submissions (
  envelope text not null,
  label text,
  database text,
  submitted_by regrole not null default quote_ident(current_user)::regrole
);

-- df.cancel and df.signal hand over in the same way.
create table df._requests (
  instance_id text not null,
  verb text not null,
  name text,
  data text,
  requested_by regrole not null default quote_ident(current_user)::regrole
);

alter table df.instances enable row level security;
alter table df.nodes enable row level security;
alter table df.vars enable row level security;
alter table df._results enable row level security;
create policy own_instances on df.instances using (submitted_by = (select quote_ident(current_user)::regrole));
create policy own_nodes on df.nodes using (submitted_by = (select quote_ident(current_user)::regrole));
create policy own_results on df._results for select
  using (exists (select from df.instances i where i.id = instance_id));
create policy own_vars on df.vars using (owner = (select quote_ident(current_user)::regrole))
  with check (owner = quote_ident(current_user)::regrole);
