-- Engines that will look for free instances again soon in any case: until then a start need not notify them. A commit
-- that notifies waits for all others that do, so under load this is what limits starts.
create unlogged table df._awake (
  engine uuid primary key,
  until timestamptz not null
) with (fillfactor = 20);

-- It has a parameter more now.
drop function if exists df._claim(uuid, integer);
