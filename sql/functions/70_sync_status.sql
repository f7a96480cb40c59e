-- Copies status changes of df.instances to pgflows.instances, if `df` is ours. (pgflows.finish writes completion.)

create or replace function pgflows._sync_status()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid;
  v_error jsonb;
begin
  select r.instance_id into v_instance from pgflows.df_runs r
  where r.df_id = new.id
    and r.n = (select max(o.n) from pgflows.df_runs o where o.instance_id = r.instance_id);
  if not found then
    return null;
  end if;
  if new.status = 'running' then
    update pgflows.instances i set status = 'running' where i.instance_id = v_instance and i.status = 'pending';
    return null;
  end if;
  if new.status = 'failed' then
    select s.error || jsonb_build_object('step_key', s.step_key) into v_error from pgflows.step_runs s
    where s.instance_id = v_instance and s.status = 'failed' order by s.ended_at desc limit 1;
    if v_error is null then
      select jsonb_build_object('type', 'FlowFailed', 'message', n.result #>> '{}') into v_error
      from df.nodes n where n.instance_id = new.id and n.id = new.root_node;
    end if;
  end if;
  update pgflows.instances i set status = new.status, error = v_error, ended_at = clock_timestamp()
  where i.instance_id = v_instance and i.status in ('pending', 'running');
  update pgflows.step_runs s set status = 'cancelled', ended_at = clock_timestamp()
  where s.instance_id = v_instance and s.status in ('requested', 'running');
  return null;
end $$;

revoke all on function pgflows._sync_status from public;

do $$ begin
  if pgflows.df_is_ours() then
    create or replace trigger pgflows_sync_status after update of status on df.instances
    for each row when (new.status in ('running', 'failed', 'cancelled') and new.status <> old.status)
    execute function pgflows._sync_status();
  end if;
end $$;
