-- Who owns each object of ours, and what PUBLIC, pgflows_run and the owner may do with it: recorded by each migration
-- (functions/95_rights.sql). owner is null for objects of an extension.
create table pgflows.rights (
  kind text not null,
  object text not null,
  owner text,
  privileges text[] not null,
  primary key (kind, object)
);

-- A database that was restored without owners before this table existed: these must be replaced under their owner's name.
do $$
declare
  v_function text;
begin
  for v_function in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'pgflows'::regnamespace and p.proname in ('start', '_restart', '_withdraw')
      and p.proowner <> 'pgflows_run'::regrole
  loop
    execute format('alter function %s owner to pgflows_run', v_function);
  end loop;
end $$;
