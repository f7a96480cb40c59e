-- How many instances ended, so that nobody counts all that are kept. Source `df` is df.instances, `pgflows` pgflows.instances.
-- Those that began before `until` are in `counted` if they had ended when they were counted, else in `uncounted`; those
-- that began later are counted by whoever asks. `until` goes on to next_until when all transactions before next_xid have ended.
create table pgflows.counted (
  source text not null,
  workflow text not null,
  status text not null,
  n bigint not null,
  primary key (source, workflow, status)
);
create table pgflows.uncounted (
  source text not null,
  id text not null,
  primary key (source, id)
);
create table pgflows.counted_until (
  source text primary key,
  until timestamptz not null default '-infinity',
  next_until timestamptz,
  next_xid xid8
);
insert into pgflows.counted_until (source) values ('df'), ('pgflows');
