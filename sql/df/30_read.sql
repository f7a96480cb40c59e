-- Reading one instance. All of it runs as the caller, so row-level security decides what is seen; the owner sees
-- everything. Volatile: what stands beside df.await_instance in one statement sees how the instance ended.
--   status, result, instance_info → _output, _execution
--   await_instance   polls, because a statement sees what others have committed before it began

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

-- An engine that has claimed an instance writes that it runs only where the run takes a while: claimed is running.
create or replace function df._status(p_instance df.instances)
returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when p_instance.status <> 'pending' then p_instance.status
    when exists (select from df._work w where w.instance_id = p_instance.id and w.owner is not null) then 'running'
    else 'pending' end
$$;

create or replace function df._function_name()
returns text language sql immutable parallel safe as $$ select 'execute_graph'::text $$;

create or replace function df.status(instance_id text)
returns text language sql volatile set search_path = pg_catalog, pg_temp as $$
  select df._status(i) from df.instances i where i.id = $1
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
  elsif timeout_seconds <= 0 then
    raise exception 'Timeout must be positive' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'timeout_seconds', 'expected', 'at least 1')::text;
  end if;
  loop
    select i.status, i.xmin::text = (pg_current_xact_id_if_assigned()::text::numeric % 4294967296)::text
    into v_status, v_here from df.instances i where i.id = instance_id;
    if v_status is null then
      raise exception 'Instance not found or access denied: %', instance_id using errcode = 'PF014',
        detail = jsonb_build_object('instance_id', instance_id)::text;
    elsif v_status in ('completed', 'failed', 'cancelled') then
      return df._no_step('df.await_instance', v_status);
    elsif v_here then
      raise exception 'instance % was started in this transaction, and no engine sees it yet', instance_id
        using errcode = 'PF104', hint = 'commit first, then wait';
    elsif current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      raise exception 'in a % transaction the end of an instance is never seen', current_setting('transaction_isolation')
        using errcode = 'PF104', hint = 'wait in a read committed transaction';
    elsif clock_timestamp() >= v_end then
      raise exception 'Timeout after %s waiting for instance % (status: %)', coalesce(timeout_seconds, 30), instance_id, v_status
        using errcode = '57014', detail = jsonb_build_object('instance_id', instance_id, 'status', v_status)::text;
    end if;
    perform pg_sleep(least(v_pause, extract(epoch from v_end - clock_timestamp())));
    v_pause := least(v_pause * 1.5, 0.25);
  end loop;
end $$;

-- The older name.
create or replace function df.wait_for_completion(instance_id text, timeout_seconds integer default 30)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  raise warning 'df.wait_for_completion() is deprecated; use df.await_instance() instead';
  return df.await_instance($1, $2);
end $$;

create or replace function df.instance_info(instance_id text)
returns table (
  instance_id text, label text, function_name text, function_version text, current_execution_id bigint,
  status text, output text
) language sql volatile set search_path = pg_catalog, pg_temp as $$
  select i.id::text, i.label, df._function_name(), df.version(), df._execution(i.id, i.root_node), df._status(i),
    df._output(i.id, i.root_node, i.status)
  from df.instances i where i.id = $1
$$;

-- Earlier executions of a root loop have left nothing but their number.
create or replace function df.instance_executions(instance_id text, limit_count integer default 5)
returns table (execution_id bigint, status text, event_count bigint, duration_ms bigint, output text)
language plpgsql volatile strict set search_path = pg_catalog, pg_temp as $$
begin
  if limit_count < 1 then
    raise exception 'df.instance_executions: limit_count must be at least 1' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'limit_count', 'expected', 'at least 1')::text;
  end if;
  return query
  select x.n,
    case
      when x.n < e.newest then 'ContinuedAsNew'
      when i.status = 'cancelled' then 'Failed'
      else initcap(df._status(i) collate "C")
    end,
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
  cross join lateral generate_series(e.newest, greatest(e.newest - least(limit_count, 10000) + 1, 1), -1) x(n)
  where i.id = $1;
end $$;
