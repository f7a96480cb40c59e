-- A role's variables, and the rights to use df. Both run as the caller: row-level security keeps each role to its own
-- variables, and a privilege can be passed on only by roles that hold it with grant option.

create or replace function df.setvar(name text, value text)
returns text language plpgsql volatile strict set search_path = pg_catalog, pg_temp as $$
begin
  perform df._inside('setvar', 'set variables before starting the workflow');
  insert into df.vars as v (name, value, owner) values ($1, $2, quote_ident(current_user)::regrole)
  on conflict on constraint vars_pkey do update set value = excluded.value;
  return df._no_step('df.setvar', 'OK');
end $$;

create or replace function df.getvar(name text)
returns text language sql volatile strict set search_path = pg_catalog, pg_temp as $$
  select v.value from df.vars v where v.owner = quote_ident(current_user)::regrole and v.name = $1
$$;

create or replace function df.unsetvar(name text)
returns text language plpgsql volatile strict set search_path = pg_catalog, pg_temp as $$
begin
  perform df._inside('unsetvar', 'manage variables before starting the workflow');
  delete from df.vars v where v.owner = quote_ident(current_user)::regrole and v.name = $1;
  return df._no_step('df.unsetvar', 'OK');
end $$;

create or replace function df.clearvars()
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform df._inside('clearvars', 'manage variables before starting the workflow');
  delete from df.vars v where v.owner = quote_ident(current_user)::regrole;
  return df._no_step('df.clearvars', 'OK');
end $$;

-- What PUBLIC may execute: building, starting, reading, cancelling, and what an engine calls when it is logged in as a
-- role. As on the extension, usage of the schema is what lets a role in. Not among them: what reaches other hosts or
-- passes rights on, df.metrics, which counts everybody's instances, and what only engines and our own functions call.
create or replace function df._is_ordinary(p_function name)
returns boolean language sql immutable as $$
  select p_function not in ('http', 'http_multipart', 'grant_usage', 'revoke_usage', 'metrics') and (
    p_function !~ '^_'
    or p_function in (
      '_is_type', '_unknown_type', '_misfit', '_no_step', '_check_step', '_envelope', '_read_envelope', '_read_graph', '_too_large', '_configured', '_check_call', '_is_cron', '_compact',
      '_inside', '_if_then', '_else', '_loop_forever', '_bad_graph', '_check_node', '_is_configured', '_node_id', '_flatten',
      '_output', '_execution', '_function_name', '_prepared', '_nodes', '_seen', '_page', '_check_limit', '_status_mark', '_node_line', '_draw', '_draw_graph', '_evaluate', '_explain', '_explain_instance', '_status',
      '_privileges', '_grantee', '_begin_sealed', '_run', '_once', '_fix_settings', '_checkpoint', '_complete', '_fence',
      '_readable', '_unreadable'
    )
  )
$$;

-- What df.grant_usage gives, as the text between GRANT (or REVOKE) and TO (or FROM).
--   usage   the schema and its tables; to insert into df.instances means to start (_check_submitter)
--   http    df.http and df.http_multipart
--   admin   passing rights on, and df.metrics
create or replace function df._privileges()
returns table (part text, privilege text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'usage', g from unnest(array[
    'usage on schema df', 'select on df.instances', 'select on df.nodes', 'select, insert, update, delete on df.vars',
    'insert (id, label, root_node, submitted_by, database) on df.instances', 'update (status, updated_at) on df.instances',
    'insert (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database) on df.nodes'
  ]) g
  union all
  select case when p.proname in ('http', 'http_multipart') then 'http' else 'admin' end, 'execute on function ' || p.oid::regprocedure
  from pg_proc p
  where p.pronamespace = 'df'::regnamespace and p.proname in ('http', 'http_multipart', 'grant_usage', 'revoke_usage', 'metrics')
$$;

create or replace function df._grantee(p_role text)
returns text language sql immutable as $$
  select case when lower(p_role collate "C") = 'public' then 'public' else quote_ident(p_role) end
$$;

-- Adds only: to take something away, df.revoke_usage first. GRANT itself would only warn where the caller may use
-- what it may not pass on.
create or replace function df.grant_usage(p_role text, include_http boolean default false, with_grant boolean default false)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_privilege text;
begin
  if not has_schema_privilege('df', 'usage with grant option')
    or (include_http and not has_function_privilege('df.http(text,text,text,jsonb,integer)', 'execute with grant option'))
    or (with_grant and not has_function_privilege('df.grant_usage(text,boolean,boolean)', 'execute with grant option')) then
    raise exception 'role % may not pass on what it was not given with grant option', current_user using errcode = '42501',
      hint = 'df.grant_usage(role, include_http, with_grant => true), called by the owner, gives it';
  end if;
  for v_privilege in
    select g.privilege from df._privileges() g
    where g.part = 'usage' or (g.part = 'http' and include_http) or (g.part = 'admin' and with_grant)
  loop
    execute format('grant %s to %s%s', v_privilege, df._grantee(p_role), case when with_grant then ' with grant option' else '' end);
  end loop;
  return 'OK';
end $$;

-- Takes back what the caller gave, and what others gave on the strength of that. What the role has from others stays
-- with it, and the warning names them.
create or replace function df.revoke_usage(p_role text)
returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_privilege text;
  v_others text;
begin
  for v_privilege in
    select g.privilege from df._privileges() g
    where g.part = 'usage' or has_function_privilege(substr(g.privilege, 21), 'execute with grant option')
    order by g.privilege like 'usage on schema%'
  loop
    execute format('revoke %s from %s cascade', v_privilege, df._grantee(p_role));
  end loop;
  select string_agg(distinct pg_get_userbyid(a.grantor)::text, ', ') into v_others
  from pg_namespace n, aclexplode(n.nspacl) a
  where n.nspname = 'df' and a.privilege_type = 'USAGE'
    and a.grantee = case df._grantee(p_role) when 'public' then 0 else df._grantee(p_role)::regrole end;
  if v_others is not null then
    raise warning 'role % still may use df: it was let in by %', p_role, v_others
      using hint = 'let them revoke it, or revoke theirs: what they gave goes with it';
  end if;
  return 'OK';
end $$;
