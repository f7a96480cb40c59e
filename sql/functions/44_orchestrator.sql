-- What is read from the orchestrator. Row-level security shows a role only what it submitted, so these functions belong to
-- pgflows_run, as those of 41_submit.sql do. For the owner alone.
--   _nodes_of, _executions_of   df.instance_nodes and df.instance_executions of a run, a row an object

set local role pgflows_run;

create or replace function pgflows._nodes_of(p_df_id text)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce((select jsonb_agg(to_jsonb(n)) from df.instance_nodes(p_df_id) n), '[]');
end $$;

create or replace function pgflows._executions_of(p_df_id text)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce((select jsonb_agg(to_jsonb(e)) from df.instance_executions(p_df_id) e), '[]');
end $$;

revoke all on function pgflows._nodes_of, pgflows._executions_of from public;
do $$ begin
  execute format('grant execute on function pgflows._nodes_of, pgflows._executions_of to %I', session_user);
end $$;

reset role;
