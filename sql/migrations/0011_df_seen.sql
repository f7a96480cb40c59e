-- These have other parameters now, or are gone.
drop function if exists df._order_node(json, text);
drop function if exists df._flatten(text, integer, integer);
drop function if exists df._claim(uuid, integer, boolean);
drop function if exists df._check_calls(oid);

-- Whether the role may call over HTTP is asked when a node calls.
alter table df._templates drop column calls_http;
alter table df._graphs drop column calls_http;

-- Whether an engine has an instance in hand is part of its status (df._status), and shown to those who may see the instance.
alter table df._work enable row level security;
create policy own_work on df._work for select using (exists (select from df.instances i where i.id = instance_id));
grant select (instance_id, owner) on df._work to public;
