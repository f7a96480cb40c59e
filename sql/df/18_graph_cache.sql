-- Graphs that are started again and again as the same text: checking and flattening one is a third of what
-- its start costs, so what came of it is cached, with numbers in the place of ids. Only df._begin looks here.
--   _node_id      the id of node n of an instance: distinct among the 2^32 without a look-up
--   _cache_graph  called for one graph of 64 that are not cached, so that the others, which may all differ, cost little
-- A cached graph is dropped after an hour (60_prune.sql); one that is in use is soon cached again.

create or replace function df._node_id(p_base bigint, p_n bigint)
returns text language sql immutable parallel safe as $$
  select lpad(to_hex((p_base + p_n * 2654435761) % 4294967296), 8, '0')
$$;

-- The lock is only tried: a start may not wait here for the end of another transaction.
create or replace function df._cache_graph(p_hash bytea, p_nodes df._prepared_nodes[])
returns void language plpgsql as $$
begin
  if cardinality(p_nodes) > 500 or not pg_try_advisory_xact_lock(1885824888, hashtext(p_hash::text)) then
    return;
  end if;
  insert into df._cached_graphs (hash) values (p_hash) on conflict (hash) do nothing;
  if not found then
    return;
  end if;
  insert into df._cached_nodes (hash, n, node_type, query, result_name, left_n, right_n, condition_n, extra_n)
  select p_hash, a.n, a.node_type, case when a.refers is null then a.query end, a.result_name,
    array_position(ids, a.left_node) - 1, array_position(ids, a.right_node) - 1,
    array_position(ids, (a.refers ->> 'condition_node')::varchar) - 1,
    (select array_agg(array_position(ids, x.id::varchar) - 1 order by x.at)
      from jsonb_array_elements_text(a.refers -> 'extra_nodes') with ordinality x(id, at))
  from (select array_agg(u.id) as ids from unnest(p_nodes) u) graph,
    (
      select (u.n - 1)::integer as n, u.node_type, u.query, u.result_name, u.left_node, u.right_node,
        case when u.node_type in ('IF', 'LOOP', 'JOIN') and u.query ~ '^[{]"(condition_node|extra_nodes)":' then u.query::jsonb end as refers
      from unnest(p_nodes) with ordinality u(hash, id, node_type, query, result_name, left_node, right_node, n)
    ) a;
end $$;

delete from df._cached_graphs;  -- what an earlier version checked
