-- The functions of pg_durable 0.2.6 for tests on servers without the extension, with the names, arguments, results and
-- rights that surface.json records. Those that read and write instances do what the extension's do.
-- A superuser runs this in a database that has the tables of surface.json and the constructors of sql/df (stand_in.py).

create schema _duroxide;

create function df.version() returns text language sql volatile strict as $$ select '0.2.6 (stand-in)' $$;
create function df.duroxide_schema() returns text language sql immutable parallel safe as $$ select '_duroxide' $$;
create function df.target_database() returns text language sql immutable strict as $$ select current_database()::text $$;

create function df.as_op(fut text, name text) returns text language sql immutable as $$ select df."as"($1, $2) $$;
create function df.if_then_op(condition text, then_branch text)
returns text language sql immutable as $$ select df._if_then($1, $2) $$;
create function df.if_else_op(partial_if text, else_branch text)
returns text language sql immutable as $$ select df._else($1, $2) $$;
create function df.loop_prefix_op(body text) returns text language sql immutable as $$ select df."loop"($1) $$;

create function df.setvar(name text, value text) returns text language plpgsql strict as $$
begin
  insert into df.vars (name, value) values ($1, $2) on conflict on constraint vars_pkey do update set value = excluded.value;
  return 'OK';
end $$;
create function df.getvar(name text) returns text language sql volatile strict as $$
  select v.value from df.vars v where v.name = $1
$$;
create function df.unsetvar(name text) returns text language plpgsql strict as $$
begin
  delete from df.vars v where v.name = $1;
  return 'OK';
end $$;
create function df.clearvars() returns text language plpgsql strict as $$
begin
  delete from df.vars;
  return 'OK';
end $$;

create function df._store(p_instance text, p_node jsonb) returns text language plpgsql as $$
declare
  v_id text := substr(md5(gen_random_uuid()::text), 1, 8);
  v_left text;
  v_right text;
begin
  if p_node ? 'left_node' then
    v_left := df._store(p_instance, p_node -> 'left_node');
  end if;
  if p_node ? 'right_node' then
    v_right := df._store(p_instance, p_node -> 'right_node');
  end if;
  insert into df.nodes (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database)
  values (v_id, p_instance, p_node ->> 'node_type', p_node ->> 'query', p_node ->> 'result_name', v_left, v_right,
    quote_ident(current_user)::regrole, null);
  return v_id;
end $$;

create function df.start(
  fut text, label text default null, database text default null, transaction_mode text default 'caller'
) returns text language plpgsql as $$
declare
  v_id text := substr(md5(gen_random_uuid()::text), 1, 8);
begin
  if (select r.rolsuper from pg_roles r where r.rolname = current_user) then
    raise exception 'a superuser may not start instances: pg_durable.enable_superuser_instances is off';
  end if;
  insert into df.instances (id, label, root_node, submitted_by, database)
  values (v_id, $2, df._store(v_id, df._envelope($1)::jsonb), quote_ident(current_user)::regrole, $3);
  return v_id;
end $$;

create function df.status(instance_id text) returns text language sql volatile strict as $$
  select i.status from df.instances i where i.id = $1
$$;
create function df.result(instance_id text) returns text language sql volatile strict as $$
  select n.result::text from df.instances i join df.nodes n on n.instance_id = i.id and n.id = i.root_node
  where i.id = $1 and i.status = 'completed'
$$;
create function df.cancel(instance_id text, reason text default 'Cancelled by user')
returns text language plpgsql strict as $$
begin
  update df.instances i set status = 'cancelled', updated_at = now()
  where i.id = $1 and i.status in ('pending', 'running');
  if not found and not exists (select from df.instances i where i.id = $1) then
    raise exception 'Instance not found or access denied: %', $1;
  end if;
  return 'OK';
end $$;
create function df.signal(instance_id text, signal_name text, signal_data text default '{}')
returns text language plpgsql strict as $$
begin
  if not exists (select from df.instances i where i.id = $1) then
    raise exception 'Instance not found or access denied: %', $1;
  end if;
  return 'OK';
end $$;
create function df.wait_for_completion(instance_id text, timeout_seconds integer default 30)
returns text language plpgsql strict as $$
declare
  v_end timestamptz := clock_timestamp() + make_interval(secs => $2);
  v_status text;
begin
  while clock_timestamp() < v_end loop
    v_status := df.status($1);
    exit when v_status is null or v_status in ('completed', 'failed', 'cancelled');
    perform pg_sleep(0.05);
  end loop;
  return v_status;
end $$;
create function df.await_instance(instance_id text, timeout_seconds integer default 30)
returns text language sql volatile strict as $$ select df.wait_for_completion($1, $2) $$;
create function df.run(instance_id text default null) returns text language sql volatile as $$
  select df.wait_for_completion($1)
$$;
create function df.explain(input text) returns text language sql volatile strict as $$ select df._envelope($1) $$;

create function df.list_instances(status_filter text default null, limit_count integer default 100)
returns table (instance_id text, label text, function_name text, status text, execution_count bigint, output text)
language sql volatile as $$
  select i.id, i.label, 'execute-function-graph', i.status, 1::bigint, df.result(i.id) from df.instances i
  where $1 is null or i.status = lower($1 collate "C") order by i.created_at desc, i.id limit $2
$$;
create function df.list_instances(
  status_filter text, limit_count integer, label_filter text, after_cursor text default null
) returns table (instance_id text, label text, function_name text, status text, execution_count bigint, output text,
  created_at timestamptz, completed_at timestamptz, next_cursor text)
language sql volatile as $$
  select i.id, i.label, 'execute-function-graph', i.status, 1::bigint, df.result(i.id), i.created_at, i.completed_at,
    null::text
  from df.instances i where ($1 is null or i.status = $1) and ($3 is null or i.label = $3)
  order by i.created_at desc, i.id limit $2
$$;
create function df.instance_info(instance_id text)
returns table (instance_id text, label text, function_name text, function_version text, current_execution_id bigint,
  status text, output text)
language sql volatile strict as $$
  select i.id, i.label, 'execute-function-graph', '1.0.0', 1::bigint, i.status,
    coalesce(df.result(i.id), (select n.result #>> '{}' from df.nodes n where n.instance_id = i.id and n.id = i.root_node))
  from df.instances i where i.id = $1
$$;
create function df.instance_nodes(instance_id_param text)
returns table (node_id text, node_type text, query text, result_name text, left_node text, right_node text, status text,
  result text, status_details text, inferred_status text, inferred_status_from_ancestor_id text, updated_at timestamptz)
language sql volatile strict as $$
  select n.id, n.node_type, n.query, n.result_name, n.left_node, n.right_node, n.status, n.result::text,
    n.status_details::text, n.status, null::text, n.updated_at
  from df.nodes n where n.instance_id = $1
$$;
create function df.instance_nodes(instance_id_param text, _last_n_executions integer)
returns table (execution_id bigint, node_id text, node_type text, query text, result_name text, left_node text,
  right_node text, status text, result text, updated_at timestamptz)
language sql volatile strict as $$
  select 1::bigint, n.node_id, n.node_type, n.query, n.result_name, n.left_node, n.right_node, n.status, n.result,
    n.updated_at
  from df.instance_nodes($1) n
$$;
create function df.instance_executions(instance_id text, limit_count integer default 5)
returns table (execution_id bigint, status text, event_count bigint, duration_ms bigint, output text)
language sql volatile strict as $$
  select 1::bigint, initcap(i.status collate "C"), 0::bigint, 0::bigint, df.result(i.id)
  from df.instances i where i.id = $1 limit $2
$$;
create function df.metrics()
returns table (total_instances bigint, running_instances bigint, completed_instances bigint, failed_instances bigint,
  total_executions bigint, total_events bigint)
language sql volatile strict security definer as $$
  select count(*), count(*) filter (where i.status = 'running'), count(*) filter (where i.status = 'completed'),
    count(*) filter (where i.status = 'failed'), count(*), 0::bigint
  from df.instances i
$$;
alter function df.metrics() security invoker;

-- Callable by whoever holds what it grants with the grant option, as GRANT itself demands.
create function df.grant_usage(p_role text, include_http boolean default false, with_grant boolean default false)
returns void language plpgsql as $$
declare
  v_option text := case when with_grant then ' with grant option' else '' end;
  v_grant text;
begin
  foreach v_grant in array array[
    'usage on schema df',
    'select on df.instances', 'insert (id, label, root_node, submitted_by, database) on df.instances',
    'update (status, updated_at) on df.instances',
    'select on df.nodes',
    'insert (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database) on df.nodes',
    'select, insert, update, delete on df.vars'
  ] || case when include_http then array[
    'execute on function df.http(text, text, text, jsonb, integer)',
    'execute on function df.http_multipart(text, text, jsonb, jsonb, integer)'
  ] else '{}' end || case when with_grant then array[
    'execute on function df.grant_usage(text, boolean, boolean)', 'execute on function df.revoke_usage(text)',
    'execute on function df.metrics()'
  ] else '{}' end loop
    execute format('grant %s to %I%s', v_grant, p_role, v_option);
  end loop;
end $$;
create function df.revoke_usage(p_role text) returns void language plpgsql as $$
begin
  execute format('revoke all on all tables in schema df from %I', p_role);
  execute format('revoke all on all functions in schema df from %I', p_role);
  execute format('revoke usage on schema df from %I', p_role);
end $$;
revoke all on function df.http(text, text, text, jsonb, integer), df.http_multipart(text, text, jsonb, jsonb, integer),
  df.metrics(), df.grant_usage(text, boolean, boolean), df.revoke_usage(text) from public;

create operator pg_catalog.~> (leftarg = text, rightarg = text, function = df.seq);
create operator pg_catalog.|=> (leftarg = text, rightarg = text, function = df.as_op);
create operator pg_catalog.& (leftarg = text, rightarg = text, function = df."join");
create operator pg_catalog.| (leftarg = text, rightarg = text, function = df.race);
create operator pg_catalog.?> (leftarg = text, rightarg = text, function = df.if_then_op);
create operator pg_catalog.!> (leftarg = text, rightarg = text, function = df.if_else_op);
create operator pg_catalog.@> (rightarg = text, function = df.loop_prefix_op);
