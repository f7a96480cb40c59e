-- Starting. df.start runs as the caller and hands over by inserting into a table of which it may fill all columns but
-- the one that says who the caller is. The trigger there does the work as the owner: a SECURITY DEFINER function could
-- not know its caller's current_user. The table stays empty.
--   start → df._submissions → _submit → _begin → _flatten (or what was kept of the graph), _enter
--   _check_submitter, _check_database   whether the role may

-- A role may start if an engine can log in as it, if it is not a superuser, and if it was let in.
create or replace function df._check_submitter(p_role oid)
returns void language plpgsql stable as $$
declare
  v_role record;
begin
  select r.rolname, r.rolcanlogin, r.rolsuper into v_role from pg_roles r where r.oid = p_role;
  if v_role.rolsuper and not df._is_on('pgflows.allow_superuser') and not df._is_on('pg_durable.enable_superuser_instances') then
    raise exception 'superuser instances are disabled: role % is a superuser', v_role.rolname using errcode = '42501',
      hint = 'start as an ordinary role, or set pg_durable.enable_superuser_instances = on';
  elsif not v_role.rolcanlogin then
    raise exception 'role % does not have LOGIN privilege, so no engine can run its statements', v_role.rolname using errcode = '42501',
      hint = 'start as a role with LOGIN';
  elsif not has_column_privilege(p_role, 'df.instances', 'id', 'insert') then
    raise exception 'role % may not start instances', v_role.rolname using errcode = '42501',
      hint = 'df.grant_usage(role) allows it';
  end if;
end $$;

create or replace function df._check_database(p_database text, p_role oid)
returns void language plpgsql stable as $$
begin
  if not exists (select from pg_database d where d.datname = p_database and d.datallowconn) then
    raise exception 'database "%" does not exist', p_database using errcode = 'PF104',
      detail = jsonb_build_object('field', 'database')::text;
  elsif not has_database_privilege(p_role, p_database, 'connect') then
    raise exception 'role % may not connect to database "%"', pg_get_userbyid(p_role), p_database using errcode = '42501';
  end if;
end $$;

-- Writes an instance of a role that was checked before, under a random id or, for a sealed request, the given one. Its nodes are those of the prepared graph p_hash; without one the caller writes them, with p_root among them.
-- Called once a start, so each expression counts.
create or replace function df._enter(p_id text, p_hash bytea, p_root text, p_label text, p_database text, p_role oid)
returns text language plpgsql as $$
declare
  v_id text;
  v_awake boolean;
begin
  loop
    insert into df.instances (id, label, root_node, submitted_by, database)
    values (coalesce(p_id, lpad(to_hex(trunc(random() * 4294967296)::bigint), 8, '0')), p_label,
      coalesce(p_root, (select t.root_node from df._prepared_graphs t where t.hash = p_hash)), p_role, p_database)
    on conflict (id) do nothing returning id into v_id;
    exit when v_id is not null;
    if p_id is not null then
      raise exception 'instance id % is taken', p_id using errcode = '23505', hint = 'start again';
    end if;
  end loop;
  insert into df._work (instance_id, prepared, vars)
  select v_id, p_hash, coalesce(jsonb_object_agg(v.name, v.value), '{}') from df.vars v where v.owner = p_role
  returning exists (select from df._awake a where a.until > clock_timestamp() + interval '30 ms') into v_awake;
  if not v_awake then
    perform pg_notify('df_work', '');  -- else an engine looks soon after this commits; if that took long, at its next beat
  end if;
  return v_id;
end $$;

create or replace function df._begin(p_id text, p_envelope text, p_label text, p_database text, p_role oid)
returns text language plpgsql as $$
declare
  v_hash constant bytea := sha256(convert_to(p_envelope, 'UTF8'));
  v_base constant bigint := trunc(random() * 4294967296);
  v_prepared boolean;
  v_cached boolean;
  v_root text;
  v_nodes df._prepared_nodes[];
  v_id text;
begin
  perform df._check_submitter(p_role);
  if p_database is not null then
    perform df._check_database(p_database, p_role);
  end if;
  -- a root that is that of a prepared graph would say that this is one
  select t.hash is not null, g.hash is not null and not exists (select from df._prepared_graphs o where o.root_node = r.id),
    coalesce(t.root_node, r.id)
  into v_prepared, v_cached, v_root
  from (select df._node_id(v_base, 0) as id) r
  left join df._prepared_graphs t on t.hash = v_hash
  left join df._cached_graphs g on g.hash = v_hash;
  if not (v_prepared or v_cached) then
    loop
      select array_agg(f.*) into v_nodes from df._flatten(df._read_graph(p_envelope)) f;
      v_root := v_nodes[1].id;
      exit when not exists (select from df._prepared_graphs t where t.root_node = v_root);
    end loop;
    if random() < 1 / 64.0 then
      perform df._cache_graph(v_hash, v_nodes);
    end if;
  end if;
  v_id := df._enter(p_id, case when v_prepared then v_hash end, v_root, p_label, p_database, p_role);
  if v_cached then
    insert into df.nodes (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database)
    select df._node_id(v_base, g.n), v_id, g.node_type,
      case
        when g.condition_n is not null then '{"condition_node":"' || df._node_id(v_base, g.condition_n) || '"}'
        when g.extra_n is not null then '{"extra_nodes":["'
          || (select string_agg(df._node_id(v_base, e.n), '","' order by e.at) from unnest(g.extra_n) with ordinality e(n, at)) || '"]}'
        else g.query
      end,
      g.result_name, df._node_id(v_base, g.left_n), df._node_id(v_base, g.right_n), p_role, p_database
    from df._cached_nodes g where g.hash = v_hash;
  elsif not v_prepared then
    insert into df.nodes (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database)
    select n.id, v_id, n.node_type, n.query, n.result_name, n.left_node, n.right_node, p_role, p_database
    from unnest(v_nodes) n;
  end if;
  return v_id;
end $$;

create or replace function df._submit()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('df.started_id', case
    when new.mode = 'new' then df._start_own_transaction(new.envelope, new.label, new.database, new.submitted_by)
    else df._begin(null, new.envelope, new.label, new.database, new.submitted_by)
  end, true);
  return null;
end $$;

create or replace trigger submit before insert on df._submissions for each row execute function df._submit();

create or replace function df.start(
  fut text, label text default null, database text default null, transaction_mode text default 'caller'
) returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if fut is null then
    return null;
  elsif transaction_mode is null or lower(transaction_mode collate "C") not in ('caller', 'new') then
    raise exception 'invalid transaction_mode "%" for df.start(): expected ''caller'' or ''new''', transaction_mode using errcode = 'PF104',
      detail = jsonb_build_object('field', 'transaction_mode', 'expected', 'caller or new')::text;
  elsif lower(transaction_mode collate "C") = 'new' then
    perform df._inside('start', 'with transaction_mode ''new''; a start without it commits with its node');
  end if;
  insert into df._submissions (envelope, label, database, mode) values (fut, label, database, lower(transaction_mode collate "C"));
  return current_setting('df.started_id');
end $$;
