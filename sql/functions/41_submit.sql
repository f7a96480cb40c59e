-- The functions that belong to pgflows_run: what they start is submitted by that role, whoever calls them.
-- They are made under its name, so that a later version can replace them without losing the grants that
-- application roles were given: grant execute on function pgflows.start to my_application;

set local role pgflows_run;

create or replace function pgflows.start(
  workflow text, input jsonb, idempotency_key text default null, label text default null, attributes jsonb default '{}'
) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_opened record;
begin
  v_opened := pgflows._open($1, $2, $3, $4, $5);
  if v_opened.graph is not null then
    perform pgflows._link(v_opened.instance_id, pgflows._restart(v_opened.graph, coalesce($4, $1)), current_user);
  end if;
  return v_opened.instance_id;
end $$;

create or replace function pgflows._restart(p_graph text, p_label text)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return df.start(p_graph, p_label);  -- not in SQL, which would want the right to use df already now
exception when internal_error then
  -- all of the extension's errors are this one; the graph is one that it took before
  raise exception 'the orchestrator cannot start a run now: %', sqlerrm using errcode = 'PF016',
    hint = 'see the server''s log if it goes on; the extension pg_durable needs some seconds after the server''s start';
end $$;

create or replace function pgflows._withdraw(p_df_id text, p_reason text)
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform df.cancel(p_df_id, p_reason);
end $$;

revoke all on function pgflows.start, pgflows._restart, pgflows._withdraw from public;
do $$ begin
  execute format('grant execute on function pgflows.start, pgflows._restart, pgflows._withdraw to %I', session_user);
end $$;

reset role;
