-- Owners and privileges of everything in the schemas pgflows and df. A restore without them, or a command of an
-- administrator, changes them without a trace in the tables; so each migration records them, and later ones compare.
--   _rights          as they are now; roles by their part: owner, pgflows_run, public
--   _record_rights   keeps them, at the end of a migration
--   lost_rights      what was recorded and is not so any more; `pgflows doctor` shows it
--   _restore_rights  gives it back; for the owner, who must be a member of pgflows_run
--   _forget_df       when the schema df is another one now: ours instead of the extension's, or the other way round
--   _move_runs       after that: starts the graph of every unfinished run again, in the df that is here now
-- What other roles were granted is not recorded: an administrator gave it and may take it away.

-- bare: nobody has granted or revoked anything, so PostgreSQL's defaults hold. owner is null for objects of an extension.
create or replace function pgflows._rights()
returns table (kind text, object text, owner text, privileges text[], bare boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with schemas as (
    select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n where n.nspname in ('pgflows', 'df')
  ), parts (role, part) as (
    select n.nspowner, 'owner' from schemas n where n.nspname = 'pgflows'
    union all select 0::oid, 'public'
    union all select r.oid, 'pgflows_run' from pg_roles r where r.rolname = 'pgflows_run'
  ), found as (
    select 'schema' as kind, quote_ident(n.nspname) as object, n.nspowner as owner, n.nspacl as acl, 'n' as letter,
      'pg_namespace'::regclass as catalog, n.oid
    from schemas n
    union all
    select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.relowner, c.relacl,
      case c.relkind when 'S' then 's' else 'r' end, 'pg_class'::regclass, c.oid
    from schemas n join pg_class c on c.relnamespace = n.oid where c.relkind in ('r', 'p', 'v', 'm', 'S')
    union all
    select 'column', format('%s.%I', c.oid::regclass, a.attname), c.relowner, a.attacl, 'c', 'pg_class'::regclass, c.oid
    from schemas n join pg_class c on c.relnamespace = n.oid join pg_attribute a on a.attrelid = c.oid
    where a.attacl is not null
    union all
    select case p.prokind when 'p' then 'procedure' else 'function' end, p.oid::regprocedure::text, p.proowner, p.proacl, 'f',
      'pg_proc'::regclass, p.oid
    from schemas n join pg_proc p on p.pronamespace = n.oid
  ), told as (
    select f.*, exists (
      select from pg_depend d where d.classid = f.catalog and d.objid = f.oid and d.objsubid = 0 and d.deptype = 'e') as foreign
    from found f
  )
  select f.kind, f.object, case when not f.foreign then coalesce(o.part, pg_get_userbyid(f.owner)) end,
    array(
      select p.part || ' ' || a.privilege_type
      from aclexplode(case when f.acl is null and not f.foreign then acldefault(f.letter::"char", f.owner) else f.acl end) a
      join parts p on p.role = a.grantee order by 1),
    f.acl is null
  from told f left join parts o on o.role = f.owner
$$;

create or replace function pgflows._record_rights()
returns void language sql set search_path = pg_catalog, pg_temp as $$
  delete from pgflows.rights;
  insert into pgflows.rights (kind, object, owner, privileges) select r.kind, r.object, r.owner, r.privileges from pgflows._rights() r
  where r.owner is not null or r.privileges <> '{}'
$$;

-- change is what has to be done: own (detail: by whom), close (to PUBLIC, which has all by default), grant (detail: what).
create or replace function pgflows.lost_rights()
returns table (kind text, object text, change text, detail text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select w.kind, w.object, c.change, c.detail, format(c.problem, w.kind || ' ' || w.object)
  from pgflows.rights w left join pgflows._rights() h using (kind, object), lateral (
    select 'own' as change, w.owner as detail,
      case when h.object is null then '%s is missing' else '%s belongs to ' || coalesce(h.owner, 'an extension') || ', not to ' || w.owner end as problem
    where w.owner is not null and w.kind <> 'column' and w.owner is distinct from h.owner
    union all
    select 'close', null, '%s is open to PUBLIC, as PostgreSQL makes it'
    where h.bare and h.privileges::text ~ 'public' and w.privileges::text !~ 'public'
    union all
    select 'grant', p, split_part(p, ' ', 1) || ' may not ' || split_part(p, ' ', 2) || ' %s'
    from unnest(w.privileges) p
    where not p = any (coalesce(h.privileges, '{}')) and (h.object is not null or w.kind = 'column')
  ) c
$$;

-- Objects of an extension are left to it: df.grant_usage lets pgflows_run use them.
create or replace function pgflows._restore_rights()
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_lost record;
  v_owner name := (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = 'pgflows');
  v_privilege text;
  v_object text;
begin
  for v_lost in select * from pgflows.lost_rights() l where l.change = 'own' and l.problem not like '%is missing' loop
    execute format('alter %s %s owner to %I', v_lost.kind, v_lost.object,
      case v_lost.detail when 'owner' then v_owner else v_lost.detail end);
  end loop;
  for v_lost in
    select l.*, w.owner from pgflows.lost_rights() l join pgflows.rights w using (kind, object)
    where l.change <> 'own' and w.owner is not null order by l.change
  loop
    v_privilege := split_part(v_lost.detail, ' ', 2);
    v_object := v_lost.kind || ' ' || v_lost.object;
    if v_lost.kind = 'column' then
      v_privilege := format('%s (%I)', v_privilege, (parse_ident(v_lost.object))[3]);
      v_object := format('table %I.%I', (parse_ident(v_lost.object))[1], (parse_ident(v_lost.object))[2]);
    end if;
    if v_lost.owner = 'pgflows_run' then
      set local role pgflows_run;
    end if;
    if v_lost.change = 'close' then
      execute format('revoke all on %s from public', v_object);
    else
      execute format('grant %s on %s to %s', v_privilege, v_object,
        case split_part(v_lost.detail, ' ', 1) when 'owner' then quote_ident(v_owner) else split_part(v_lost.detail, ' ', 1) end);
    end if;
    reset role;
  end loop;
end $$;

create or replace function pgflows._forget_df()
returns void language sql set search_path = pg_catalog, pg_temp as $$
  delete from pgflows.migrations m where m.number = 0 or m.name ~ '^migrations/[0-9]+_df_';
  delete from pgflows.rights r where r.object ~ '^df([.]|$)'
$$;

create or replace function pgflows._move_runs()
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_instance uuid;
begin
  for v_instance in
    select i.instance_id from pgflows.instances i
    where i.status in ('pending', 'running') and i.status <> 'completed' order by i.instance_id for update
  loop
    begin
      update pgflows.instances i set status = 'pending' where i.instance_id = v_instance;
      perform pgflows._start_again(v_instance, 'the orchestrator was exchanged');
    exception when sqlstate 'PF010' then
      update pgflows.instances i
      set status = 'failed', ended_at = clock_timestamp(), error = jsonb_build_object('type', 'FlowFailed', 'message', sqlerrm)
      where i.instance_id = v_instance;
    end;
  end loop;
end $$;

revoke all on function
  pgflows._rights, pgflows._record_rights, pgflows.lost_rights, pgflows._restore_rights, pgflows._forget_df, pgflows._move_runs
from public;
