-- What every later file of this folder leans on.
--   _close      says which of the functions PUBLIC may execute
--   _compact    JSON as text without spaces
--   _inside     refuses a call that a run's own statements may not make
--   _is_on      reads a switch
-- Nobody but the owner may use the schema until df.grant_usage, or a GRANT, lets a role in.

-- Called by the last file. A function without an access list is new: PUBLIC may execute it by default.
create or replace function df._close()
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_function record;
begin
  for v_function in
    select p.oid::regprocedure as name, df._is_ordinary(p.proname) as ordinary from pg_proc p
    where p.pronamespace = 'df'::regnamespace and p.proacl is null
  loop
    if v_function.ordinary then
      execute format('grant execute on function %s to public', v_function.name);
    else
      execute format('revoke all on function %s from public', v_function.name);
    end if;
  end loop;
end $$;

-- Called by the last file. Functions that run as their caller read what row-level security lets the caller see. Where a
-- role's setting is off they would refuse to read at all.
create or replace function df._read_by_row()
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_function record;
begin
  for v_function in
    select p.oid::regprocedure as name from pg_proc p
    where p.pronamespace = 'df'::regnamespace and not p.prosecdef and p.prokind = 'f' and p.proconfig is not null
  loop
    execute format('alter function %s set row_security = on', v_function.name);
  end loop;
end $$;

-- The order of keys is jsonb's. One pass: strings are kept, the space after a comma or colon outside them goes.
create or replace function df._compact(p_value jsonb)
returns text language sql immutable strict parallel safe as $$
  select regexp_replace(p_value::text, E'("(?:[^"\\\\]|\\\\.)*")|([,:]) ', E'\\1\\2', 'g')
$$;

create or replace function df._inside(p_function text, p_reason text)
returns void language plpgsql stable as $$
begin
  if current_setting('df.in_workflow', true) = 'true' then
    raise exception 'df.%() cannot be called inside a workflow - %', p_function, p_reason using errcode = 'PF105';
  end if;
end $$;

-- PostgreSQL keeps an undeclared setting as it was written: on, true, yes, 1.
create or replace function df._is_on(p_setting text)
returns boolean language sql stable as $$
  select coalesce(nullif(current_setting(p_setting, true), '')::boolean, false)
$$;

-- The version of the contract that these functions honour, and whose they are.
create or replace function df.version()
returns text language sql immutable parallel safe as $$ select '0.2.6+pgflows'::text $$;

create or replace function df.target_database()
returns text language sql stable parallel safe as $$ select current_database()::text $$;
