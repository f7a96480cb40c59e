-- The verbs that the HTTP API adds to pgflows.start. For the owner alone.
--   start_instance    POST /workflows/{name}/start: pgflows.start, and what came of it
--   cancel_instance   POST /instances/{id}/cancel

-- 'created' is false if the idempotency key had started the instance before.
create or replace function pgflows.start_instance(
  p_workflow text, p_input jsonb, p_key text, p_label text, p_attributes jsonb
) returns jsonb language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid := pgflows.start(p_workflow, p_input, p_key, p_label, p_attributes);
begin
  return pgflows._instance_document(v_instance)
    || jsonb_build_object('created', p_key is null or current_setting('pgflows.keyed_start', true) is not distinct from v_instance::text);
end $$;

-- Ends a live instance; one that has ended stays as it is. Where df is ours, its row is taken first, as by the trigger on
-- df.instances, and only an instance that is still live afterwards is written here. The extension hears of it from
-- pgflows.sweep: what its df.cancel does at once would outlive a rollback.
create or replace function pgflows.cancel_instance(p_id text, p_reason text default null)
returns jsonb language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
  v_instance uuid := pgflows._find_instance(p_id);
  v_df_id text := pgflows._current_run(v_instance);
  v_error jsonb := jsonb_build_object('type', 'Cancelled', 'message', coalesce(p_reason, 'cancelled by request'));
begin
  if not pgflows.has_ended(v_instance) then
    if v_df_id is not null and pgflows.df_is_ours() then
      perform df.cancel(v_df_id, v_error ->> 'message');
    end if;
    update pgflows.instances i set status = 'cancelled', ended_at = coalesce(i.ended_at, clock_timestamp()), error = v_error
    where i.instance_id = v_instance and i.status in ('pending', 'running', 'cancelled');
    if found then
      update pgflows.step_runs s set status = 'cancelled', ended_at = clock_timestamp()
      where s.instance_id = v_instance and s.status in ('requested', 'running');
    end if;
  end if;
  return pgflows._instance_document(v_instance);
exception when lock_not_available then
  raise exception 'another transaction, still open, is changing instance %', v_instance
    using errcode = 'PF015', detail = jsonb_build_object('instance_id', v_instance),
    hint = 'try again when it has ended';
end $$;

revoke all on function pgflows.start_instance(text, jsonb, text, text, jsonb), pgflows.cancel_instance(text, text) from public;
