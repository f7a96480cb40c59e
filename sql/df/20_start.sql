-- Starting, cancelling, signalling. The functions that callers see run as the caller, hand over by inserting into
-- a table of which they may fill all columns but the one that says who they are, and the trigger there does the
-- work as the owner: a SECURITY DEFINER function could not know its caller's current_user. The tables stay empty.
--   start → df._submissions → _submit → _begin → _flatten (or what _prepare or _remember kept), _enter
--   cancel, signal → df._requests → _grant_request → _cancel, _deliver

create or replace function df._bad_graph(p_path text, p_problem text)
returns void language plpgsql immutable as $$
begin
  raise exception 'Invalid durable function graph: %: %', p_path, p_problem using errcode = 'PF101',
    detail = jsonb_build_object('path', p_path, 'problem', p_problem)::text;
end $$;

-- True where the JSON text of a node that somebody may have written by hand says what an engine needs.
create or replace function df._is_configured(p_type text, p_query text)
returns boolean language plpgsql immutable as $$
declare
  v_spec json;
begin
  v_spec := p_query::json;
  return json_typeof(v_spec) = 'object' and case
    when p_type = 'IF' then v_spec ->> 'condition_type' = 'result_has_rows' and json_typeof(v_spec -> 'result_name') = 'string'
      and v_spec -> 'condition_node' is null and v_spec -> 'extra_nodes' is null
    when p_type = 'SIGNAL' then v_spec ->> 'signal_name' <> '' and json_typeof(v_spec -> 'signal_name') = 'string'
      and coalesce(json_typeof(v_spec -> 'timeout_seconds') in ('number', 'null'), true)
      and coalesce((v_spec ->> 'timeout_seconds')::numeric between 0 and 1e12, true)
    when p_type = 'WAIT_SCHEDULE' then json_typeof(v_spec -> 'cron_expr') = 'string' and df._is_cron(v_spec ->> 'cron_expr')
    when p_type in ('HTTP', 'HTTP_MULTIPART') then json_typeof(v_spec -> 'url') = 'string'
      and v_spec ->> 'method' in ('GET', 'POST', 'PUT', 'DELETE', 'PATCH')
      and coalesce(json_typeof(v_spec -> 'body') in ('string', 'null'), true)
      and coalesce(json_typeof(v_spec -> 'headers') in ('object', 'null'), true)
      and coalesce(json_typeof(v_spec -> 'timeout_seconds') in ('number', 'null'), true)
      and coalesce((v_spec ->> 'timeout_seconds')::numeric between 0.001 and 1e9, true)
      and case p_type when 'HTTP' then v_spec -> 'parts' is null else json_typeof(v_spec -> 'parts') = 'array' end
    else true
  end;
exception when data_exception then
  return false;
end $$;

-- What a node must look like to be run; children are counted by the caller.
create or replace function df._check_node(p_path text, p_type text, p_query text, p_name text, p_children text)
returns void language plpgsql immutable as $$
begin
  if p_children !~ (case
    when p_type in ('THEN', 'RACE') then '^LR$'
    when p_type = 'JOIN' then '^LRE*$'
    when p_type = 'IF' and p_query is null then '^LRC$'
    when p_type = 'IF' then '^LR$'
    when p_type = 'LOOP' then '^LC?$'
    else '^$'
  end) then
    perform df._bad_graph(p_path, case p_type
      when 'IF' then 'IF needs a condition and two branches'
      when 'LOOP' then 'LOOP needs a body'
      else case when p_type in ('THEN', 'JOIN', 'RACE') then p_type || ' needs two children'
        else p_type || ' has no children' end
    end);
  elsif p_query is null and p_type not in ('THEN', 'JOIN', 'RACE', 'IF', 'LOOP') then
    perform df._bad_graph(p_path, p_type || ' needs a query');
  elsif p_query is not null and p_type in ('THEN', 'JOIN', 'RACE', 'LOOP') then
    perform df._bad_graph(p_path, p_type || ' has no query');  -- it would name other nodes as children
  elsif p_type = 'SLEEP' and p_query !~ '^\d{1,18}$' then
    perform df._bad_graph(p_path, 'SLEEP needs a number of seconds');
  elsif p_query is not null and p_type not in ('SQL', 'SLEEP') and not coalesce(df._is_configured(p_type, p_query), false) then
    perform df._bad_graph(p_path, p_type || ' cannot be read: ' || left(p_query, 200));
  elsif p_name !~ '^[A-Za-z_][A-Za-z0-9_]*$' then
    perform df._bad_graph(p_path, 'the result name is no identifier');
  end if;
end $$;

-- A graph as rows, the root first. jsonb is parsed once and then only copied; the stack holds disjoint parts of it.
-- Ids: a random start, then steps of an odd number, so that they are distinct among the 2^32 without a look-up.
create or replace function df._flatten(
  p_graph text, p_depth integer default 256, p_nodes integer default 10000
) returns setof df._template_nodes language plpgsql volatile as $$
declare
  c_keys constant text[] := array['extra_nodes', 'right_node', 'left_node', 'condition_node'];
  v_docs jsonb[];
  v_ids text[];
  v_depths integer[] := array[0];
  v_paths text[] := array['root'];
  v_top integer := 1;
  v_count bigint := 1;
  v_base bigint := trunc(random() * 4294967296);
  v_doc jsonb;
  v_child jsonb;
  v_depth integer;
  v_path text;
  v_key text;
  v_id text;
  v_children text;
  v_extra text[];
  v_condition text;
  v_node df._template_nodes;
begin
  begin
    v_docs[1] := df._envelope(p_graph)::jsonb;
  exception when invalid_text_representation or untranslatable_character then
    perform df._bad_graph('root', sqlerrm);
  end;
  v_ids[1] := df._node_id(v_base, 0);
  while v_top > 0 loop
    v_doc := v_docs[v_top];
    v_depth := v_depths[v_top];
    v_path := v_paths[v_top];
    v_node.id := v_ids[v_top];
    v_top := v_top - 1;
    if v_depth > p_depth then
      raise exception 'Graph exceeds maximum nesting depth of %', p_depth using errcode = 'PF103',
        detail = jsonb_build_object('field', 'depth', 'limit', p_depth)::text,
        hint = 'balance long sequences, or start parts as instances of their own';
    end if;
    v_node.node_type := v_doc ->> 'node_type';
    if jsonb_typeof(v_doc) <> 'object' or not df._is_type(v_node.node_type) then
      perform df._bad_graph(v_path, 'not a node');
    end if;
    v_node.query := v_doc ->> 'query';
    v_node.result_name := v_doc ->> 'result_name';
    v_node.left_node := null;
    v_node.right_node := null;
    v_condition := null;
    v_extra := null;
    v_children := '';
    foreach v_key in array c_keys loop
      v_child := v_doc -> v_key;
      continue when v_child is null or jsonb_typeof(v_child) = 'null';
      if v_key = 'extra_nodes' then
        for n in reverse jsonb_array_length(v_child) - 1 .. 0 loop
          v_id := df._node_id(v_base, v_count);
          v_count := v_count + 1;
          v_top := v_top + 1;
          v_docs[v_top] := v_child -> n;
          v_ids[v_top] := v_id;
          v_depths[v_top] := v_depth + 1;
          v_paths[v_top] := v_path || '.extra';
          v_extra := v_id || v_extra;
          v_children := 'E' || v_children;
        end loop;
      else
        v_id := df._node_id(v_base, v_count);
        v_count := v_count + 1;
        v_top := v_top + 1;
        v_docs[v_top] := v_child;
        v_ids[v_top] := v_id;
        v_depths[v_top] := v_depth + 1;
        v_paths[v_top] := v_path || '.' || split_part(v_key, '_', 1);
        case v_key
          when 'right_node' then v_node.right_node := v_id; v_children := 'R' || v_children;
          when 'left_node' then v_node.left_node := v_id; v_children := 'L' || v_children;
          else v_condition := v_id; v_children := v_children || 'C';
        end case;
      end if;
    end loop;
    if v_count > p_nodes then
      raise exception 'Graph exceeds maximum of % nodes', p_nodes using errcode = 'PF103',
        detail = jsonb_build_object('field', 'nodes', 'limit', p_nodes)::text,
        hint = 'start parts as instances of their own, or loop over the data';
    end if;
    perform df._check_node(v_path, v_node.node_type, v_node.query, v_node.result_name, v_children);
    if v_condition is not null then
      v_node.query := '{"condition_node":"' || v_condition || '"}';
    elsif v_extra is not null then
      v_node.query := '{"extra_nodes":["' || array_to_string(v_extra, '","') || '"]}';
    end if;
    return next v_node;
  end loop;
end $$;

-- Flattens a graph that will be started often and answers its hash. df.start knows it again by its text.
create or replace function df._prepare(p_graph text)
returns bytea language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_hash bytea := sha256(convert_to(p_graph, 'UTF8'));
  v_nodes df._template_nodes[];
begin
  if exists (select from df._templates t where t.hash = v_hash) then
    return v_hash;
  end if;
  select array_agg(f.*) into v_nodes from df._flatten(p_graph) f;
  insert into df._templates (hash, root_node, calls_http)
  select v_hash, v_nodes[1].id, bool_or(n.node_type in ('HTTP', 'HTTP_MULTIPART')) from unnest(v_nodes) n
  on conflict do nothing;
  if found then
    insert into df._template_nodes (hash, id, node_type, query, result_name, left_node, right_node)
    select v_hash, n.id, n.node_type, n.query, n.result_name, n.left_node, n.right_node from unnest(v_nodes) n;
  end if;
  return v_hash;
end $$;

-- Who may start: a role that an engine can log in as, and not one that may do everything.
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

create or replace function df._check_calls(p_role oid)
returns void language plpgsql stable as $$
begin
  if not has_function_privilege(p_role, 'df.http(text,text,text,jsonb,integer)', 'execute') then
    raise exception 'role % may not call over HTTP', pg_get_userbyid(p_role) using errcode = '42501',
      hint = 'df.grant_usage(role, include_http => true) allows it';
  end if;
end $$;

-- Writes an instance of a role that is known to be fit for it, under an id of ours or, for a sealed request, the given
-- one. Its nodes are those of the prepared graph p_hash; without one the caller writes them, with p_root among them.
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
      coalesce(p_root, (select t.root_node from df._templates t where t.hash = p_hash)), p_role, p_database)
    on conflict (id) do nothing returning id into v_id;
    exit when v_id is not null;
    if p_id is not null then
      raise exception 'instance id % is taken', p_id using errcode = '23505', hint = 'start again';
    end if;
  end loop;
  insert into df._work (instance_id, template, vars)
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
  v_known boolean;
  v_root text;
  v_http boolean;
  v_nodes df._template_nodes[];
  v_id text;
begin
  perform df._check_submitter(p_role);
  if p_database is not null then
    perform df._check_database(p_database, p_role);
  end if;
  -- a root that is that of a prepared graph would say that this is one
  select t.hash is not null, g.hash is not null and not exists (select from df._templates o where o.root_node = r.id),
    coalesce(t.root_node, r.id), coalesce(t.calls_http, g.calls_http)
  into v_prepared, v_known, v_root, v_http
  from (select df._node_id(v_base, 0) as id) r
  left join df._templates t on t.hash = v_hash
  left join df._graphs g on g.hash = v_hash;
  if not (v_prepared or v_known) then
    loop
      select array_agg(f.*), bool_or(f.node_type in ('HTTP', 'HTTP_MULTIPART')) into v_nodes, v_http
      from df._flatten(p_envelope) f;
      v_root := v_nodes[1].id;
      exit when not exists (select from df._templates t where t.root_node = v_root);
    end loop;
    if random() < 1 / 64.0 then
      perform df._remember(v_hash, v_nodes);
    end if;
  end if;
  if v_http then
    perform df._check_calls(p_role);
  end if;
  v_id := df._enter(p_id, case when v_prepared then v_hash end, v_root, p_label, p_database, p_role);
  if v_known then
    insert into df.nodes (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database)
    select df._node_id(v_base, g.n), v_id, g.node_type,
      case
        when g.condition_n is not null then '{"condition_node":"' || df._node_id(v_base, g.condition_n) || '"}'
        when g.extra_n is not null then '{"extra_nodes":["'
          || (select string_agg(df._node_id(v_base, e.n), '","' order by e.at) from unnest(g.extra_n) with ordinality e(n, at)) || '"]}'
        else g.query
      end,
      g.result_name, df._node_id(v_base, g.left_n), df._node_id(v_base, g.right_n), p_role, p_database
    from df._graph_nodes g where g.hash = v_hash;
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
    when new.mode = 'new' then df._start_apart(new.envelope, new.label, new.database, new.submitted_by)
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
  elsif transaction_mode is null or transaction_mode not in ('caller', 'new') then
    raise exception 'invalid transaction_mode "%"', transaction_mode using errcode = 'PF104',
      detail = jsonb_build_object('field', 'transaction_mode', 'expected', 'caller or new')::text;
  elsif transaction_mode = 'new' then
    perform df._inside('start', 'with transaction_mode ''new''; a start without it commits with its node');
  end if;
  insert into df._submissions (envelope, label, database, mode) values (fut, label, database, transaction_mode);
  return current_setting('df.started_id');
end $$;

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

create or replace function df.cancel(instance_id text, reason text default 'cancelled by user')
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if instance_id is null then
    return null;
  end if;
  insert into df._requests (instance_id, verb, data) values (instance_id, 'cancel', coalesce(reason, 'cancelled by user'));
  return format('Instance %s cancelled: %s', instance_id, coalesce(reason, 'cancelled by user'));
end $$;

create or replace function df.signal(instance_id text, signal_name text, signal_data text default '{}')
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if instance_id is null or signal_name is null or signal_data is null then
    return null;
  elsif signal_name = '' then
    raise exception 'Signal name cannot be empty' using errcode = 'PF104';
  end if;
  insert into df._requests (instance_id, verb, name, data) values (instance_id, 'signal', signal_name, signal_data);
  return 'OK';
end $$;
