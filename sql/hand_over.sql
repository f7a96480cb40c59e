-- Gives everything of pgflows in this database to one role. For a superuser, after a restore under another name;
-- `pgflows migrate` prints it with the role's name in the place of NEW_OWNER.
do $$
declare
  v_statement text;
begin
  for v_statement in
    with ours as (
      select n.oid, n.nspname from pg_namespace n where n.nspname in ('pgflows', 'df', 'pgmq')
      and not exists (select from pg_depend d where d.classid = 'pg_namespace'::regclass and d.objid = n.oid and d.deptype = 'e')
    )
    select format('schema %I', n.nspname) from ours n
    union all
    select format('table %s', c.oid::regclass) from ours n join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm')
    union all
    select format('sequence %s', c.oid::regclass) from ours n join pg_class c on c.relnamespace = n.oid and c.relkind = 'S'
    where not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))
    union all
    select format('routine %s', p.oid::regprocedure) from ours n join pg_proc p on p.pronamespace = n.oid
    union all
    select format('type %s', t.oid::regtype) from ours n join pg_type t on t.typnamespace = n.oid
    left join pg_class c on c.oid = t.typrelid where t.typtype in ('e', 'd') or c.relkind = 'c'
    union all
    select format('operator %s', o.oid::regoperator) from ours n join pg_proc p on p.pronamespace = n.oid
    join pg_operator o on o.oprcode = p.oid
  loop
    execute format('alter %s owner to NEW_OWNER', v_statement);
  end loop;
end $$;
