-- What every later file of this folder leans on.
--   _close      takes from PUBLIC what a new function gives it, and gives it to the roles that use df
--   _compact    JSON as text without spaces
--   _inside     refuses a call that a run's own statements may not make
-- Functions are open to nobody but the owner until df.grant_usage names a role.

-- Called by the last file. A function that nobody has granted or revoked yet is new: PUBLIC may execute
-- it by default. Roles that may use df.start were let in before, so they get what has been added since.
create or replace function df._close()
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_function regprocedure;
  v_role record;
begin
  for v_function in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'df'::regnamespace and p.proacl is null
  loop
    execute format('revoke all on function %s from public', v_function);
  end loop;
  if to_regprocedure('df.grant_usage(text,boolean,boolean)') is null
    or to_regprocedure('df.start(text,text,text,text)') is null then
    return;
  end if;
  for v_role in
    select case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end as name, a.is_grantable,
      http.calls, http.passes_on
    from pg_proc p, aclexplode(p.proacl) a
    cross join lateral (
      select coalesce(bool_or(true), false) as calls, coalesce(bool_or(b.is_grantable), false) as passes_on
      from pg_proc h, aclexplode(h.proacl) b
      where h.pronamespace = 'df'::regnamespace and h.proname = 'http' and b.grantee = a.grantee
    ) http
    where p.oid = 'df.start(text,text,text,text)'::regprocedure and a.grantee <> p.proowner
  loop
    perform df.grant_usage(v_role.name, v_role.calls);
    if v_role.is_grantable then
      perform df.grant_usage(v_role.name, v_role.passes_on, with_grant => true);
    end if;
  end loop;
end $$;

-- The order of keys is jsonb's. One pass: strings are kept, the space after a comma or colon outside them goes.
create or replace function df._compact(p_value jsonb)
returns text language sql immutable strict parallel safe as $$
  select regexp_replace(p_value::text, '("(?:[^"\\]|\\.)*")|([,:]) ', '\1\2', 'g')
$$;

create or replace function df._inside(p_function text, p_reason text)
returns void language plpgsql stable as $$
begin
  if current_setting('df.in_workflow', true) = 'true' then
    raise exception 'df.%() cannot be called inside a workflow - %', p_function, p_reason using errcode = 'PF105';
  end if;
end $$;

-- An engine whose last heartbeat is older than this is dead.
create or replace function df._dead_after()
returns interval language sql immutable parallel safe as $$ select interval '3 seconds' $$;

-- The version of the contract that these functions honour, and whose they are.
create or replace function df.version()
returns text language sql immutable parallel safe as $$ select '0.2.6+pgflows'::text $$;

create or replace function df.target_database()
returns text language sql stable parallel safe as $$ select current_database()::text $$;
