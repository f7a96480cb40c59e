-- df.start(…, transaction_mode => 'new'): the start commits whatever becomes of the caller's transaction. Only another
-- session can do that, so one is opened to this very database, as pgflows_run, by dblink. What it asks for is sealed
-- with a key that only the owner can read, because pgflows_run may not start instances in the name of other roles.

do $$
declare
  v_super boolean := (select r.rolsuper from pg_roles r where r.rolname = current_user);
begin
  if v_super and exists (select from pg_available_extensions a where a.name = 'dblink') then
    create extension if not exists dblink schema public;
  end if;
end $$;

create or replace function df._seal(
  p_id text, p_envelope text, p_label text, p_database text, p_role oid, p_until bigint
) returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select encode(sha256(k.outside || sha256(k.inside || convert_to(
    jsonb_build_array(p_id, p_envelope, p_label, p_database, p_role::bigint, p_until)::text, 'UTF8'))), 'hex')
  from df._seal_key k
$$;

-- The other session's end. A seal is good for a minute, and its id for one instance.
create or replace function df._begin_sealed(
  p_id text, p_envelope text, p_label text, p_database text, p_role oid, p_until bigint, p_seal text
) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_seal is distinct from df._seal(p_id, p_envelope, p_label, p_database, p_role, p_until)
    or to_timestamp(p_until) < clock_timestamp() then
    raise exception 'the seal of this start is not ours' using errcode = '42501';
  end if;
  return df._begin(p_id, p_envelope, p_label, p_database, p_role);
end $$;

-- Asks over a connection without a name, which ends with the call. A connection with a name is one of pgflows_run that would
-- stay in the caller's session if a time-out or a cancel cuts in. It needs a name only if the server asks pgflows_run for no
-- password and an admin let the owner use dblink_connect_u; then callers that can use dblink are refused.
create or replace function df._dial(p_schema text, p_target text, p_request text)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  c_name constant text := 'df_start_own_transaction';
  v_answer text;
  v_open text[];
begin
  if not has_function_privilege(format('%I.dblink_connect_u(text,text)', p_schema), 'execute')
    or (select r.rolsuper from pg_roles r where r.rolname = current_user) then
    execute format('select answer from %I.dblink($1, $2) as t(answer text)', p_schema) into v_answer using p_target, p_request;
    return v_answer;
  elsif has_schema_privilege(session_user, p_schema, 'usage')
    and has_function_privilege(session_user, format('%I.dblink(text,text)', p_schema), 'execute') then
    raise exception 'role % can use dblink, and with it a session of pgflows_run', session_user using errcode = '42501',
      hint = format('revoke usage on schema %I from it, or let the server ask pgflows_run for its password and revoke '
        'dblink_connect_u from the owner of df', p_schema);
  end if;
  begin
    execute format('select %I.dblink_connect_u($1, $2)', p_schema) using c_name, p_target;
    execute format('select answer from %I.dblink($1, $2) as t(answer text)', p_schema) into v_answer using c_name, p_request;
  exception when others or query_canceled then
    execute format('select %I.dblink_get_connections()', p_schema) into v_open;
    if c_name = any (v_open) then
      execute format('select %I.dblink_disconnect(%L)', p_schema, c_name);
    end if;
    raise;
  end;
  execute format('select %I.dblink_disconnect(%L)', p_schema, c_name);
  return v_answer;
end $$;

create or replace function df._start_own_transaction(p_envelope text, p_label text, p_database text, p_role oid)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_schema text := (
    select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'dblink'
  );
  v_password text := (select l.password from pgflows.run_login l);
  v_target text := format('port=%s dbname=%s user=pgflows_run connect_timeout=5 application_name=df_start '
    || E'options=''-c statement_timeout=30s -c lock_timeout=30s -c default_transaction_isolation=read\\\\ committed''%s', coalesce(inet_server_port()::text, current_setting('port')),
    quote_literal(current_database()), coalesce(' password=' || quote_literal(v_password), ''));
  v_hosts text[] := array[' host=' || host(inet_server_addr()), ' host=127.0.0.1', ''];
  v_id text := left(gen_random_uuid()::text, 8);
  v_until bigint := extract(epoch from clock_timestamp())::bigint + 60;
  v_request text;
  v_detail text;
  v_why text;
begin
  if v_schema is null then
    raise exception 'transaction_mode ''new'' needs the extension dblink in this database' using errcode = 'PF102',
      hint = 'a superuser may run: create extension dblink';
  end if;
  v_request := format('select df._begin_sealed(%L, %L, %L, %L, %s, %s, %L)', v_id, p_envelope, p_label, p_database,
    p_role, v_until, df._seal(v_id, p_envelope, p_label, p_database, p_role, v_until));
  for i in 1 .. 3 loop
    continue when v_hosts[i] is null;
    begin
      return df._dial(v_schema, v_target || v_hosts[i], v_request);
    exception when sqlclient_unable_to_establish_sqlconnection or sqlstate '2F003' then
      get stacked diagnostics v_detail = pg_exception_detail;
      v_why := concat_ws('; ', v_why, coalesce(nullif(trim(v_detail), ''), sqlerrm));
    end;
  end loop;
  raise exception 'transaction_mode ''new'' needs a connection of pgflows_run to this server: %', v_why using errcode = '08001',
    hint = 'let pgflows_run log in from the server itself';
end $$;
