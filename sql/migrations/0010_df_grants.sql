-- Rights as on the extension, so that GRANTs written for it work: whoever may use schema df may execute its ordinary
-- functions (40_vars_grants.sql says which), and who may insert into df.instances may start. The tables themselves are
-- written by nobody but the owner, whatever was granted: no policy lets a row in.
drop policy own_instances on df.instances;
drop policy own_nodes on df.nodes;
create policy own_instances on df.instances for select using (submitted_by = (select quote_ident(current_user)::regrole));
create policy own_nodes on df.nodes for select using (submitted_by = (select quote_ident(current_user)::regrole));
create policy no_update on df.instances for update
  using (submitted_by = (select quote_ident(current_user)::regrole)) with check (false);
create policy no_update on df.nodes for update
  using (submitted_by = (select quote_ident(current_user)::regrole)) with check (false);

grant select on df._results to public;
grant insert (envelope, label, database, mode) on df._submissions to public;
grant insert (instance_id, verb, name, data) on df._requests to public;

-- Who was let in before.
do $$
declare
  v_role record;
begin
  for v_role in
    select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as name,
      case when a.is_grantable then ' with grant option' else '' end as passes_on
    from pg_namespace n, aclexplode(n.nspacl) a
    where n.nspname = 'df' and a.privilege_type = 'USAGE' and a.grantee <> n.nspowner
  loop
    execute format('grant insert (id, label, root_node, submitted_by, database), update (status, updated_at)'
      ' on df.instances to %s%s', v_role.name, v_role.passes_on);
    execute format('grant insert (id, instance_id, node_type, query, result_name, left_node, right_node, submitted_by, database)'
      ' on df.nodes to %s%s', v_role.name, v_role.passes_on);
  end loop;
end $$;
