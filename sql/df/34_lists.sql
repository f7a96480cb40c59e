-- Reading many instances.
--   list_instances → _check_limit, _page, _output

-- One page, newest first, with the status as df._status tells it. The statement is made for the filters that are given, so
-- that each has its index.
create or replace function df._page(
  p_status text, p_limit integer, p_label text, p_at timestamptz default null, p_after text default null
) returns setof df.instances language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  c_rows constant text := '(select i.id, i.label, i.root_node, df._status(i), i.submitted_by, i.database, i.created_at, '
    'i.updated_at, i.completed_at from df.instances i where %s order by i.created_at desc, i.id limit $5)';
  v_others constant text := concat(
    case when p_label is not null then ' and i.label = $2' end,
    case when p_at is not null then ' and i.created_at <= $3 and (i.created_at < $3 or i.id > $4)' end);
  c_claimed constant text := '(select w.instance_id from df._work w where w.owner is not null)';
begin
  return query execute case p_status
    when 'pending' then format(c_rows, 'i.status = $1 and i.id not in ' || c_claimed || v_others)
    when 'running' then format(c_rows, 'i.status = $1' || v_others) || ' union all '
      || format(c_rows, 'i.status = ''pending'' and i.id in ' || c_claimed || v_others)
      || ' order by created_at desc, id limit $5'
    else format(c_rows, case when p_status is null then 'true' else 'i.status = $1' end || v_others)
  end
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
      raise exception 'df.list_instances: invalid after_cursor: %', after_cursor using errcode = 'PF104',
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
