-- What is read from the orchestrator. Row-level security shows a role only what it submitted, so these functions belong to
-- pgflows_run, as those of 41_submit.sql do. For the owner alone.
--   _nodes_of, _executions_of   df.instance_nodes and df.instance_executions of a run, a row an object
--   _states_of                  where runs stand
--   _live_runs                  the runs that the orchestrator has not ended
--   _failure_of                 the node that failed a run
--   _ended_unseen               what ended in the extension's engine without a word to df.instances

set local role pgflows_run;

-- In the order of the graph: a node, then its children from left to right, the condition of an IF before its branches.
create or replace function pgflows._nodes_of(p_df_id text)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce((
    with recursive nodes as materialized (
      select n.*, case when n.node_type in ('IF', 'LOOP', 'JOIN') and starts_with(n.query, '{') then n.query::jsonb end as more
      from df.instance_nodes(p_df_id) n
    ), tree (node_id, path) as (
      select i.root_node::text, '{}'::integer[] from df.instances i where i.id = p_df_id
      union all
      select c.id, t.path || c.place
      from tree t
      join nodes n on n.node_id = t.node_id
      cross join lateral (
        select n.more ->> 'condition_node', case n.node_type when 'IF' then 0 else 3 end
        union all select n.left_node, 1
        union all select n.right_node, 2
        union all select x.id, 3 + x.place::integer from jsonb_array_elements_text(n.more -> 'extra_nodes') with ordinality x(id, place)
      ) c(id, place)
      where c.id is not null and cardinality(t.path) < 256
    )
    select jsonb_agg(to_jsonb(n) - 'more' order by t.path, n.node_id) from nodes n left join tree t on t.node_id = n.node_id
  ), '[]');
end $$;

create or replace function pgflows._executions_of(p_df_id text)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce((select jsonb_agg(to_jsonb(e)) from df.instance_executions(p_df_id) e), '[]');
end $$;

create or replace function pgflows._states_of(p_df_ids text[])
returns table (df_id text, status text, since timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select i.id::text, i.status, i.updated_at from df.instances i where i.id = any (p_df_ids);
end $$;

create or replace function pgflows._live_runs()
returns setof text language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select i.id::text from df.instances i where i.status in ('pending', 'running');
end $$;

-- A failed node hands its error up to the root. A race's losers may have failed as well, with errors of their own.
create or replace function pgflows._failure_of(p_df_id text, out node_type text, out node jsonb, out message text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  select n.node_type, case when n.node_type like 'HTTP%' then n.query::jsonb end, r.result #>> '{}'
  into node_type, node, message
  from df.instances i
  join df.nodes r on r.instance_id = i.id and r.id = i.root_node
  left join df.nodes n on n.instance_id = i.id and n.status = 'failed' and n.result = r.result
    and n.node_type not in ('THEN', 'IF', 'LOOP', 'JOIN', 'RACE')
  where i.id = p_df_id
  order by n.updated_at limit 1;
end $$;

-- The extension's engine keeps its own books. It has an output for a run that ended there; df.instances still shows the run
-- as p_status if the engine could not see its row, as when the starting transaction stays open for longer than 5 s.
create or replace function pgflows._ended_unseen(p_status text)
returns table (df_id text, message text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_limit constant integer := least(1000, current_setting('pg_durable.list_instances_max_limit', true)::integer);
  v_after text;
  v_next text;
  v_run record;
begin
  loop
    v_next := null;
    for v_run in select * from df.list_instances(p_status, v_limit, null, v_after) loop
      v_next := v_run.next_cursor;
      if v_run.output is not null then
        df_id := v_run.instance_id;
        message := v_run.output;
        return next;
      end if;
    end loop;
    exit when v_next is null;
    v_after := v_next;
  end loop;
end $$;

revoke all on function
  pgflows._nodes_of, pgflows._executions_of, pgflows._states_of, pgflows._live_runs, pgflows._failure_of, pgflows._ended_unseen
from public;
do $$ begin
  execute format('grant execute on function pgflows._nodes_of, pgflows._executions_of, pgflows._states_of, '
    'pgflows._live_runs, pgflows._failure_of, pgflows._ended_unseen to %I', session_user);
end $$;

reset role;
