-- Reading. All of it runs as the caller, so row-level security decides what is seen; the owner sees everything. Volatile: what
-- stands beside df.await_instance in one statement sees how the instance ended.
--   status, result, instance_info, list_instances → _output, _execution
--   await_instance   polls, because a statement sees what others have committed before it began
--   instance_nodes → _seen   the status that a node's neighbours let it have

-- Completed: the text kept beside the root's result, where jsonb would lose its order; a sleep's text has spaces.
create or replace function df._output(p_instance text, p_root text, p_status text)
returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select case p_status
    when 'completed' then coalesce(r.result, case when n.result ? 'slept' then n.result::text else df._compact(n.result) end)
    when 'failed' then case when n.status = 'failed' then n.result #>> '{}' else r.result end
    when 'cancelled' then r.result
  end
  from df.nodes n
  left join df._results r on r.instance_id = n.instance_id and r.node_id = n.id
  where n.instance_id = p_instance and n.id = p_root
$$;

-- Only a root loop has more than one: its nodes tell the newest.
create or replace function df._execution(p_instance text, p_root text)
returns bigint language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(max(split_part(n.status_details ->> 'execution_id', '::', 2)::bigint), 1)
  from df.nodes root
  join df.nodes n on n.instance_id = root.instance_id and n.status_details is not null
  where root.instance_id = p_instance and root.id = p_root and root.node_type = 'LOOP'
$$;

create or replace function df._function_name()
returns text language sql immutable parallel safe as $$ select 'execute_graph'::text $$;

create or replace function df.status(instance_id text)
returns text language sql volatile set search_path = pg_catalog, pg_temp as $$
  select i.status from df.instances i where i.id = $1
$$;

create or replace function df.result(instance_id text)
returns text language sql volatile set search_path = pg_catalog, pg_temp as $$
  select n.result::text from df.instances i
  join df.nodes n on n.instance_id = i.id and n.id = i.root_node
  where i.id = $1 and i.status = 'completed'
$$;

create or replace function df.await_instance(instance_id text, timeout_seconds integer default 30)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_end timestamptz := clock_timestamp() + make_interval(secs => coalesce(timeout_seconds, 30));
  v_status text;
  v_here boolean;
  v_pause double precision := 0.005;
begin
  perform df._inside('await_instance', 'it would block a worker thread (and self-deadlock if waiting on the current '
    'instance). Use df.signal() and df.wait_for_signal() for cross-workflow coordination.');
  if instance_id is null then
    return null;
  end if;
  loop
    select i.status, i.xmin::text = (pg_current_xact_id_if_assigned()::text::numeric % 4294967296)::text
    into v_status, v_here from df.instances i where i.id = instance_id;
    if v_status is null then
      raise exception 'Instance not found or access denied: %', instance_id using errcode = 'PF014',
        detail = jsonb_build_object('instance_id', instance_id)::text;
    elsif v_status in ('completed', 'failed', 'cancelled') then
      return v_status;
    elsif v_here then
      raise exception 'instance % was started in this transaction, and no engine sees it yet', instance_id
        using errcode = 'PF104', hint = 'commit first, then wait';
    elsif current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      raise exception 'in a % transaction the end of an instance is never seen', current_setting('transaction_isolation')
        using errcode = 'PF104', hint = 'wait in a read committed transaction';
    elsif clock_timestamp() >= v_end then
      raise exception 'instance % has not ended within % seconds: it is %', instance_id, timeout_seconds, v_status
        using errcode = '57014', detail = jsonb_build_object('instance_id', instance_id, 'status', v_status)::text;
    end if;
    perform pg_sleep(least(v_pause, extract(epoch from v_end - clock_timestamp())));
    v_pause := least(v_pause * 1.5, 0.25);
  end loop;
end $$;

create or replace function df.instance_info(instance_id text)
returns table (
  instance_id text, label text, function_name text, function_version text, current_execution_id bigint,
  status text, output text
) language sql volatile set search_path = pg_catalog, pg_temp as $$
  select i.id::text, i.label, df._function_name(), df.version(), df._execution(i.id, i.root_node), i.status,
    df._output(i.id, i.root_node, i.status)
  from df.instances i where i.id = $1
$$;

-- Earlier executions of a root loop have left nothing but their number.
create or replace function df.instance_executions(instance_id text, limit_count integer default 5)
returns table (execution_id bigint, status text, event_count bigint, duration_ms bigint, output text)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select x.n, case when x.n < e.newest then 'ContinuedAsNew' else initcap(i.status) end,
    (
      select count(*) from df.nodes n
      where n.instance_id = i.id and split_part(n.status_details ->> 'execution_id', '::', 2) = x.n::text
    ),
    case when x.n = e.newest then (extract(epoch from
      case when i.status in ('pending', 'running') then clock_timestamp() else i.updated_at end - i.created_at) * 1000)::bigint
    end,
    case when x.n = e.newest then df._output(i.id, i.root_node, i.status) end
  from df.instances i
  cross join lateral (select df._execution(i.id, i.root_node) as newest) e
  cross join lateral generate_series(e.newest, greatest(e.newest - $2 + 1, 1), -1) x(n)
  where i.id = $1
$$;

-- The nodes of the prepared graph that an instance was started from; of an instance that the caller may see.
create or replace function df._prepared(p_instance text)
returns setof df._template_nodes language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select n.*
  from df.instances i
  join df._templates t on t.root_node = i.root_node
  join df._template_nodes n on n.hash = t.hash
  where i.id = p_instance and (i.submitted_by = quote_ident(session_user)::regrole
    or pg_has_role(session_user, (select c.relowner from pg_class c where c.oid = 'df.nodes'::regclass), 'member'))
$$;

-- All nodes of an instance: what was written down, and what a prepared graph has besides. Of such a graph a THEN
-- below the root has a row only where it failed: it completes with its right side, and runs since its left began.
create or replace function df._nodes(p_instance text)
returns table (
  id text, node_type text, query text, result_name text, left_node text, right_node text,
  status text, result jsonb, status_details jsonb, updated_at timestamptz
) language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive prepared as materialized (select * from df._prepared(p_instance)),
  written as materialized (select * from df.nodes n where n.instance_id = p_instance),
  unwritten as materialized (select * from prepared p where not exists (select from written n where n.id = p.id)),
  ends as (
    select u.id as top, side.last, case when side.last then u.right_node else u.left_node end as at
    from unwritten u cross join (values (true), (false)) side(last) where u.node_type = 'THEN'
    union all
    select e.top, e.last, case when e.last then u.right_node else u.left_node end
    from ends e join unwritten u on u.id = e.at and u.node_type = 'THEN'
  ), known as (
    select e.top, min(n.status) filter (where e.last) as last_status, bool_or(true) as begun,
      (array_agg(n.id) filter (where e.last))[1] as last_id, max(n.updated_at) as updated_at
    from ends e join written n on n.id = e.at and n.status <> 'pending' group by e.top
  )
  select n.id::text, n.node_type, coalesce(n.query, p.query), n.result_name, n.left_node::text, n.right_node::text,
    n.status, n.result, n.status_details, n.updated_at
  from written n left join prepared p on p.id = n.id
  union all
  select u.id::text, u.node_type, u.query, u.result_name, u.left_node::text, u.right_node::text,
    case when k.last_status = 'completed' then 'completed' when k.begun then 'running' else 'pending' end,
    case when k.last_status = 'completed' then n.result end,
    n.status_details, coalesce(k.updated_at, i.created_at)
  from unwritten u
  join df.instances i on i.id = p_instance
  left join known k on k.top = u.id
  left join written n on n.id = k.last_id
$$;

-- The nodes of one instance with their parents, and whether a newer generation of their scope has begun. A scope
-- is an execution id without its last number; it is over when any scope that it lies in is.
create or replace function df._seen(p_instance text)
returns table (id text, inferred_status text, from_ancestor text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive nodes as materialized (
    select n.id::text, n.node_type, n.status, string_to_array(n.status_details ->> 'execution_id', '::') as tokens,
      array_remove(array[n.left_node::text, n.right_node::text], null) || case
        when n.query is null or n.node_type not in ('IF', 'LOOP', 'JOIN') then '{}'
        else array_remove(array[n.query::jsonb ->> 'condition_node'], null)
          || array(select jsonb_array_elements_text(n.query::jsonb -> 'extra_nodes'))
      end as children
    from df._nodes(p_instance) n
  ), scopes as materialized (
    select n.id, array_to_string(n.tokens[1:k - 1], '::') as scope, n.tokens[k]::bigint as generation
    from nodes n cross join lateral generate_series(2, cardinality(n.tokens), 2) k
  ), latest as (
    select s.scope, max(s.generation) as generation from scopes s group by s.scope
  ), past as (
    select distinct s.id from scopes s join latest l on l.scope = s.scope where s.generation < l.generation
  ), physical as materialized (
    select n.id, case when p.id is null then n.status else 'pending' end as status, p.id is not null as over
    from nodes n left join past p on p.id = n.id
  ), edges as materialized (
    select c.child, n.id as parent from nodes n cross join lateral unnest(n.children) c(child)
  ), walk as (
    -- decided: the nearest ancestor that has ended; live: the nearest that is of the current generation
    select i.root_node::text as id, p.status as inferred_status, null::text as from_ancestor,
      case when p.status in ('completed', 'failed') then p.id end as decided, p.id as live
    from df.instances i join physical p on p.id = i.root_node
    where i.id = p_instance
    union all
    select p.id,
      case when p.status in ('pending', 'running') and w.decided is not null then 'skipped' else p.status end,
      case when p.status in ('pending', 'running') and w.decided is not null then w.decided when p.over then w.live end,
      case when p.status in ('completed', 'failed') then p.id else w.decided end,
      case when p.over then w.live else p.id end
    from walk w join edges e on e.parent = w.id join physical p on p.id = e.child
  )
  select w.id, w.inferred_status, w.from_ancestor from walk w
$$;

create or replace function df.instance_nodes(instance_id text)
returns table (
  node_id text, node_type text, query text, result_name text, left_node text, right_node text, status text,
  result text, status_details text, inferred_status text, inferred_status_from_ancestor_id text, updated_at timestamptz
) language sql volatile set search_path = pg_catalog, pg_temp as $$
  select n.id::text, n.node_type, n.query, n.result_name, n.left_node::text, n.right_node::text, n.status,
    n.result::text, n.status_details::text, s.inferred_status, s.from_ancestor, n.updated_at
  from df._seen($1) s
  join df._nodes($1) n on n.id = s.id
  order by n.id
$$;

-- One page, newest first. The statement is made for the filters that are given, so that each has its index.
create or replace function df._page(
  p_status text, p_limit integer, p_label text, p_at timestamptz default null, p_after text default null
) returns setof df.instances language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return query execute 'select * from df.instances i where true'
    || case when p_status is not null then ' and i.status = $1' else '' end
    || case when p_label is not null then ' and i.label = $2' else '' end
    || case when p_at is not null then ' and i.created_at <= $3 and (i.created_at < $3 or i.id > $4)' else '' end
    || ' order by i.created_at desc, i.id limit $5'
  using p_status, p_label, p_at, p_after, p_limit;
end $$;

create or replace function df._check_limit(p_limit integer)
returns void language plpgsql stable as $$
declare
  v_most integer := coalesce(nullif(current_setting('pg_durable.list_instances_max_limit', true), ''), '1000');
begin
  if p_limit > v_most then
    raise exception 'df.list_instances: limit_count (%) exceeds pg_durable.list_instances_max_limit (%)', p_limit, v_most using errcode = 'PF103',
      detail = jsonb_build_object('field', 'limit_count', 'limit', v_most)::text,
      hint = 'read page by page: df.list_instances(status, limit, label, after_cursor)';
  elsif p_limit < 1 or p_limit is null then
    raise exception 'df.list_instances: limit_count must be at least 1' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'limit_count', 'expected', 'at least 1')::text;
  end if;
end $$;

create or replace function df.list_instances(status_filter text default null, limit_count integer default 100)
returns table (instance_id text, label text, function_name text, status text, execution_count bigint, output text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform df._check_limit(limit_count);
  return query
  select i.id::text, i.label, df._function_name(), i.status, df._execution(i.id, i.root_node),
    df._output(i.id, i.root_node, i.status)
  from df._page(status_filter, limit_count, null) i;
end $$;

-- The cursor is the last row's place: its time and id. One row more than the page tells whether there is a next.
create or replace function df.list_instances(
  status_filter text, limit_count integer, label_filter text, after_cursor text default null
) returns table (
  instance_id text, label text, function_name text, status text, execution_count bigint, output text,
  created_at timestamptz, completed_at timestamptz, next_cursor text
) language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_at timestamptz;
  v_after text;
begin
  perform df._check_limit(limit_count);
  if after_cursor is not null then
    begin
      v_after := convert_from(decode(after_cursor, 'hex'), 'UTF8');
      v_at := timestamptz 'epoch' + split_part(v_after, '-', 1)::bigint * interval '1 microsecond';
      v_after := split_part(v_after, '-', 2);
    exception when data_exception then
      v_at := null;
    end;
    if v_at is null or v_after !~ '^[0-9a-f]{8}$' then
      raise exception 'df.list_instances: not a cursor of ours: %', after_cursor using errcode = 'PF104',
        detail = jsonb_build_object('field', 'after_cursor')::text;
    end if;
  end if;
  return query
  with page as materialized (
    select p.*, row_number() over () as n from df._page(status_filter, limit_count + 1, label_filter, v_at, v_after) p
  )
  select i.id::text, i.label, df._function_name(), i.status, df._execution(i.id, i.root_node),
    df._output(i.id, i.root_node, i.status), i.created_at, i.completed_at,
    (
      select encode(convert_to((extract(epoch from l.created_at) * 1000000)::bigint || '-' || l.id, 'UTF8'), 'hex')
      from page l where l.n = limit_count and exists (select from page x where x.n > limit_count)
    )
  from page i where i.n <= limit_count order by i.n;
end $$;

-- Of all roles, so it has a grant of its own. Events are estimated: nodes are not worth counting.
create or replace function df.metrics()
returns table (
  total_instances bigint, running_instances bigint, completed_instances bigint, failed_instances bigint,
  total_executions bigint, total_events bigint
) language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select count(*), count(*) filter (where i.status in ('pending', 'running')),
    count(*) filter (where i.status = 'completed'), count(*) filter (where i.status = 'failed'), count(*),
    (select greatest(c.reltuples, 0)::bigint from pg_class c where c.oid = 'df.nodes'::regclass)
  from df.instances i
$$;
