-- The tables of schema pgflows: definitions, instances and the ledger of steps.

create table pgflows.settings (
  name text primary key,
  value jsonb not null
);
insert into pgflows.settings values ('max_input_bytes', '1048576');

-- How the engine logs in as pgflows_run; read by the owner only.
create table if not exists pgflows.run_login (
  one boolean primary key default true check (one),
  password text not null
);

-- A 64-byte key, each byte combined with the constant of HMAC's inner (0x36) or outer (0x5c) hash.
create function pgflows._pad(p_secret bytea, p_constant integer)
returns bytea language plpgsql immutable strict set search_path = pg_catalog, pg_temp as $$
begin
  for i in 0 .. 63 loop
    p_secret := set_byte(p_secret, i, get_byte(p_secret, i) # p_constant);
  end loop;
  return p_secret;
end $$;

create table pgflows.signing_keys (
  key_id text primary key check (key_id ~ '^[a-z0-9]{4,32}$'),
  secret bytea not null check (length(secret) = 64),
  inner_pad bytea not null generated always as (pgflows._pad(secret, 54)) stored,
  outer_pad bytea not null generated always as (pgflows._pad(secret, 92)) stored,
  created_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz
);

-- Where steps are served: the only URLs that engines call again after an infrastructure failure.
create table pgflows.base_urls (
  url text primary key check (url ~ '^https?://' and url !~ '/$'),
  registered_at timestamptz not null default clock_timestamp()
);

-- One row a step service process; alive while its session holds the advisory lock (pgflows.service_lock_class(), service_id).
create table pgflows.services (
  service_id integer primary key generated always as identity,
  base_url text,
  started_at timestamptz not null default clock_timestamp()
);

-- graph is the df envelope, evaluated once; template what our df prepared of it, null on the extension. required, fields and
-- types (as jsonb_typeof says) are those of the input, if its model is that simple: fields is null otherwise. definition is what the API shows: steps with their retry policy, and the flow as data.
create table pgflows.workflows (
  name text not null check (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,62}$'),
  version text not null,
  active boolean not null default true,
  graph text not null,
  template bytea,
  required text[] not null,
  fields text[],
  types text[],
  definition jsonb not null,
  input_schema jsonb not null,
  output_schema jsonb not null,
  checksum text not null,
  registered_at timestamptz not null default clock_timestamp(),
  primary key (name, version)
);
create unique index workflows_active on pgflows.workflows (name) where active;

create table pgflows.instances (
  instance_id uuid primary key,
  workflow text not null,
  version text not null,
  status text not null default 'pending' check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
  input jsonb not null,
  output jsonb,
  error jsonb,
  label text,
  attributes jsonb not null default '{}',
  idempotency_key text,
  started_by text not null,
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz
) with (fillfactor = 80);
create unique index instances_idempotency on pgflows.instances (workflow, idempotency_key) where idempotency_key is not null;
create index instances_workflow on pgflows.instances (workflow, instance_id);
create index instances_label on pgflows.instances (label, instance_id) where label is not null;
create index instances_open on pgflows.instances (status, instance_id) where status <> 'completed';

-- A row per start of an instance's graph: n = 1, then one more for each revival. The newest is the current one.
create table pgflows.df_runs (
  df_id varchar(8) primary key,
  instance_id uuid not null,
  n integer not null,
  submitted_by regrole not null,
  started_at timestamptz not null default clock_timestamp(),
  unique (instance_id, n)
);

-- The variables of one strand of control after its node number seq; ret is what that node answered (a repeated node answers it again).
create table pgflows.frames (
  df_id varchar(8) not null,
  frame text not null,
  seq integer not null,
  env jsonb not null,
  ret jsonb,
  primary key (df_id, frame, seq)
);

-- The ledger: one row a step of an instance. requested -> running -> completed | failed; cancelled with its instance.
-- retry is a policy of the workflow that overrides the step's own.
-- running belongs to service_id for as long as that service lives; requested with retry_at waits for its next attempt.
create table pgflows.step_runs (
  instance_id uuid not null,
  step_key text not null,
  step text not null,
  n integer not null,
  status text not null default 'requested' check (status in ('requested', 'running', 'completed', 'failed', 'cancelled')),
  call integer not null,
  key_id text not null,
  input jsonb not null,
  output jsonb,
  error jsonb,
  retry jsonb,
  attempts integer not null default 0,
  service_id integer,
  requested_at timestamptz not null default clock_timestamp(),
  retry_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz,
  primary key (instance_id, step_key)
) with (fillfactor = 60);

-- One row an attempt, written when it ends. error_type 'ProcessDied': nobody recorded its end, another process took the step over.
create table pgflows.attempts (
  instance_id uuid not null,
  step_key text not null,
  attempt integer not null,
  started_at timestamptz not null,
  ended_at timestamptz not null default clock_timestamp(),
  error_type text,
  message text,
  traceback text,
  primary key (instance_id, step_key, attempt)
);
