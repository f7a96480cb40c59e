-- Cancelling and signalling. The functions that callers see hand over to the owner as df.start does (22_start.sql).
--   cancel, signal → df._requests → _grant_request → _cancel, _deliver

-- Nodes stay as they are, as on the extension: what ran when the end came is seen there.
create or replace function df._cancel(p_instance text, p_reason text)
returns void language plpgsql as $$
begin
  perform from df._work w where w.instance_id = p_instance for update;
  update df.instances i set status = 'cancelled', updated_at = clock_timestamp()
  where i.id = p_instance and i.status in ('pending', 'running');
  if found then
    delete from df._work w where w.instance_id = p_instance;
    delete from df._signals s where s.instance_id = p_instance;
    insert into df._results (instance_id, node_id, result)
    select i.id, i.root_node, 'canceled: ' || p_reason from df.instances i where i.id = p_instance
    on conflict (instance_id, node_id) do update set result = excluded.result;
    perform pg_notify('df_cancel', p_instance);
  end if;
end $$;

-- Kept until a node waits for it, or the instance ends. A parked instance is woken, a running one is told.
create or replace function df._deliver(p_instance text, p_name text, p_data text)
returns void language plpgsql as $$
begin
  perform from df._work w where w.instance_id = p_instance for no key update;
  if not found then
    return;
  end if;
  begin
    perform p_data::json;
  exception when invalid_text_representation then
    p_data := to_json(p_data)::text;
  end;
  insert into df._signals (instance_id, name, data) values (p_instance, p_name, p_data);
  update df._work w set wake_at = least(w.wake_at, clock_timestamp()) where w.instance_id = p_instance and w.owner is null;
  if found then
    perform pg_notify('df_work', '');
  else
    perform pg_notify('df_signal', p_instance);
  end if;
end $$;

create or replace function df._grant_request()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  if not exists (
    select from df.instances i
    where i.id = new.instance_id and (
      i.submitted_by = new.requested_by
      or new.requested_by = (select c.relowner from pg_class c where c.oid = 'df.instances'::regclass)
      or exists (select from pg_roles r where r.oid = new.requested_by and (r.rolsuper or r.rolbypassrls))
    )
  ) then
    raise exception 'Instance not found or access denied: %', new.instance_id using errcode = 'PF014',
      detail = jsonb_build_object('instance_id', new.instance_id)::text;
  elsif new.verb = 'cancel' then
    perform df._cancel(new.instance_id, new.data);
  elsif new.verb = 'signal' then
    perform df._deliver(new.instance_id, new.name, new.data);
  end if;
  return null;
end $$;

create or replace trigger grant_request before insert on df._requests for each row execute function df._grant_request();

create or replace function df.cancel(instance_id text, reason text default 'Cancelled by user')
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if instance_id is null then
    return null;
  end if;
  insert into df._requests (instance_id, verb, data) values (instance_id, 'cancel', coalesce(reason, 'Cancelled by user'));
  return format('Instance %s cancelled: %s', instance_id, coalesce(reason, 'Cancelled by user'));
end $$;

create or replace function df.signal(instance_id text, signal_name text, signal_data text default '{}')
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if instance_id is null or signal_name is null or signal_data is null then
    return null;
  elsif instance_id = '' then
    raise exception 'Instance ID cannot be empty' using errcode = 'PF104';
  elsif signal_name = '' then
    raise exception 'Signal name cannot be empty' using errcode = 'PF104';
  end if;
  insert into df._requests (instance_id, verb, name, data) values (instance_id, 'signal', signal_name, signal_data);
  return 'OK';
end $$;
