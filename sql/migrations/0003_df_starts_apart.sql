-- Starts that commit by themselves (transaction_mode 'new'): what a submission asks for, and the key that seals the
-- request which travels over a connection of its own (df._start_apart).

alter table df._submissions add column mode text not null default 'caller';

-- 122 random bits a uuid; two hashes of three each make 64 bytes, one block of sha256
create table df._seal_key (
  one boolean primary key default true check (one),
  inside bytea not null
    default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
      || sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
  outside bytea not null
    default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
      || sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
);
insert into df._seal_key default values;
