-- df.start(…, transaction_mode => 'new'): the start commits whatever becomes of the caller's transaction. Only another
-- session can do that, so one is opened to this very database, as pgflows_run, by dblink. What it asks for is sealed
-- with a key that nobody but the owner can read, because pgflows_run may not start instances in others' names.

do $$
declare
  v_super boolean := (select r.rolsuper from pg_roles r where r.rolname = current_user);
begin
  if v_super and exists (select from pg_available_extensions a where a.name = 'dblink') then
    create extension if not exists dblink;
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

create or replace function df._dial(p_schema text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  c_name constant text := 'df_start_apart';
  v_password text := (select l.password from pgflows.run_login l);
  v_target text := format('port=%s dbname=%s user=pgflows_run connect_timeout=5 application_name=df_start '
    'options=''-c statement_timeout=30s -c lock_timeout=30s''%s', coalesce(inet_server_port()::text, current_setting('port')),
    quote_literal(current_database()), coalesce(' password=' || quote_literal(v_password), ''));
  v_unchecked boolean := has_function_privilege(format('%I.dblink_connect_u(text,text)', p_schema), 'execute');
  v_hosts text[] := array[' host=' || host(inet_server_addr()), ' host=127.0.0.1', ''];
  v_open text[];
  v_detail text;
  v_why text;
begin
  execute format('select %I.dblink_get_connections()', p_schema) into v_open;
  if c_name = any (v_open) then
    execute format('select %I.dblink_disconnect(%L)', p_schema, c_name);
  end if;
  for i in 1 .. 3 loop
    continue when v_hosts[i] is null;
    begin
      execute format('select %I.%I($1, $2)', p_schema, case when v_unchecked then 'dblink_connect_u' else 'dblink_connect' end)
        using c_name, v_target || v_hosts[i];
      return;
    exception when sqlclient_unable_to_establish_sqlconnection or sqlstate '2F003' then
      get stacked diagnostics v_detail = pg_exception_detail;
      v_why := concat_ws('; ', v_why, coalesce(nullif(trim(v_detail), ''), sqlerrm));
      if i = 3 then
        raise exception 'transaction_mode ''new'' needs a connection of pgflows_run to this server: %', v_why using errcode = '08001',
          hint = 'let pgflows_run log in from the server itself';
      end if;
    end;
  end loop;
end $$;

create or replace function df._start_apart(p_envelope text, p_label text, p_database text, p_role oid)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  c_name constant text := 'df_start_apart';
  v_schema text := (
    select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'dblink'
  );
  v_id text := left(gen_random_uuid()::text, 8);
  v_until bigint := extract(epoch from clock_timestamp())::bigint + 60;
begin
  if v_schema is null then
    raise exception 'transaction_mode ''new'' needs the extension dblink in this database' using errcode = 'PF102',
      hint = 'a superuser may run: create extension dblink';
  end if;
  perform df._dial(v_schema);
  begin
    execute format('select id from %I.dblink($1, $2) as t(id text)', v_schema) into v_id
      using c_name, format('select df._begin_sealed(%L, %L, %L, %L, %s, %s, %L)', v_id, p_envelope, p_label, p_database,
        p_role, v_until, df._seal(v_id, p_envelope, p_label, p_database, p_role, v_until));
  exception when others then
    execute format('select %I.dblink_disconnect(%L)', v_schema, c_name);
    raise;
  end;
  execute format('select %I.dblink_disconnect(%L)', v_schema, c_name);
  return v_id;
end $$;
