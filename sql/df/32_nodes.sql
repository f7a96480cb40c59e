-- Reading the nodes of one instance.
--   instance_nodes → _seen    the status of a node as its ancestors tell it
--   _seen → _nodes            what was written down, and what a prepared graph has besides

-- The nodes of the prepared graph that an instance was started from; of an instance that the caller may see.
create or replace function df._prepared(p_instance text)
returns setof df._prepared_nodes language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select n.*
  from df.instances i
  join df._prepared_graphs t on t.root_node = i.root_node
  join df._prepared_nodes n on n.hash = t.hash
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

-- As it was before 0.2.4; the number of executions never counted.
create or replace function df.instance_nodes(instance_id text, last_n_executions integer)
returns table (
  execution_id bigint, node_id text, node_type text, query text, result_name text, left_node text, right_node text,
  status text, result text, updated_at timestamptz
) language sql volatile strict set search_path = pg_catalog, pg_temp as $$
  select 1::bigint, n.id, n.node_type, n.query, n.result_name, n.left_node, n.right_node, n.status, n.result::text, n.updated_at
  from df._nodes($1) n order by n.id
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
