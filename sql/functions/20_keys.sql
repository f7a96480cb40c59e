-- Signatures of step calls: HMAC-SHA256, made here and nowhere else; step services check them.
--   _sign        the header value for one request. Stable, as convert_to is, and without a search_path of its
--                own: so it is inlined
--   live_keys    what a service needs to check signatures; retired keys are among them, because a
--                request signed before a rotation stays good while its ledger row names the key
--   rotate_key   a new key signs from now on; the ones before are retired

create or replace function pgflows._sign(
  p_key_id text, p_inner bytea, p_outer bytea, p_df_id text, p_step text, p_step_key text, p_seq integer, p_body text
) returns text language sql stable as $$
  select 'v1.' || p_key_id || '.' || encode(sha256(p_outer || sha256(p_inner || convert_to(
    'v1.' || p_key_id || '.' || p_df_id || '.' || p_step || '.' || p_step_key || '.' || p_seq::text || '.'
      || encode(sha256(convert_to(p_body, 'UTF8')), 'hex'), 'UTF8'))), 'hex')
$$;

create or replace function pgflows.live_keys()
returns table (key_id text, secret bytea) language sql stable set search_path = pg_catalog, pg_temp as $$
  select k.key_id, k.secret from pgflows.signing_keys k
$$;

create or replace function pgflows.list_keys()
returns table (key_id text, created_at timestamptz, retired_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select k.key_id, k.created_at, k.retired_at from pgflows.signing_keys k order by k.created_at desc
$$;

create or replace function pgflows.rotate_key()
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_key text := substr(md5(gen_random_uuid()::text), 1, 12);
  v_secret bytea := '';
begin
  -- 122 random bits a uuid; two hashes of three each make 64 bytes
  for i in 1 .. 2 loop
    v_secret := v_secret || sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
  end loop;
  update pgflows.signing_keys set retired_at = clock_timestamp() where retired_at is null;
  insert into pgflows.signing_keys (key_id, secret) values (v_key, v_secret);
  return v_key;
end $$;

do $$ begin
  if not exists (select from pgflows.signing_keys) then
    perform pgflows.rotate_key();
  end if;
end $$;

revoke all on function pgflows._sign, pgflows.live_keys, pgflows.list_keys, pgflows.rotate_key from public;
