-- Identifiers and constants.
--   uuid7               time-ordered ids: a page of the newest instances is a range of the primary key
--   first_id            the least id of a time
--   service_lock_class  the first half of the advisory lock that a living step service holds

do $do$ begin
  if current_setting('server_version_num')::integer >= 180000 then
    create or replace function pgflows.uuid7()
    returns uuid language sql volatile as $$ select uuidv7() $$;
    return;
  end if;
  create or replace function pgflows.uuid7()
  returns uuid language sql volatile as $$
  -- RFC 9562: 48 bits of milliseconds, the version, 12 bits of the fraction of the millisecond, the variant, random bits
  select encode(
    substring(int8send((t.us / 1000)::bigint) from 3)
      || int2send((28672 | ((t.us % 1000) * 4096 / 1000)::integer)::smallint)
      || substring(uuid_send(gen_random_uuid()) from 9), 'hex')::uuid
  from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as us) t
  $$;
end $do$;

create or replace function pgflows.first_id(p_at timestamptz)
returns uuid language sql stable set search_path = pg_catalog, pg_temp as $$
  select rpad(lpad(to_hex(greatest(extract(epoch from p_at) * 1000, 0)::bigint), 12, '0'), 32, '0')::uuid
$$;
revoke all on function pgflows.first_id(timestamptz) from public;

create or replace function pgflows.service_lock_class()
returns integer language sql immutable as $$ select 1885824886 $$;
