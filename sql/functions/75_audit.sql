-- pgflows.audit: the books of a workflow's runs, for `pgflows demo`.
--   run_again       attempts that ended because their process died
--   recorded_twice  steps with more than one attempt that ended well
--   lost            steps without a recorded end in runs that completed, and steps that a run never came to

create or replace function pgflows.audit(p_workflow text)
returns table (completed bigint, steps bigint, run_again bigint, recorded_twice bigint, lost bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with runs as (
    select i.instance_id, i.status, jsonb_array_length(w.definition -> 'steps') as expected
    from pgflows.instances i
    join pgflows.workflows w on w.name = i.workflow and w.version = i.version
    where i.workflow = p_workflow
  ), ends as (
    select r.instance_id, s.step_key, s.status,
      count(a.*) filter (where a.error_type is null) as good,
      count(a.*) filter (where a.error_type = 'ProcessDied') as died
    from runs r
    join pgflows.step_runs s on s.instance_id = r.instance_id
    left join pgflows.all_attempts a on a.instance_id = s.instance_id and a.step_key = s.step_key
    group by r.instance_id, s.step_key, s.status
  )
  select
    (select count(*) from runs r where r.status = 'completed'),
    (select count(*) from ends e where e.status = 'completed'),
    (select coalesce(sum(e.died), 0)::bigint from ends e),
    (select count(*) from ends e where e.good > 1),
    (select coalesce(sum(r.expected), 0)::bigint from runs r) - (select count(*) from ends e where e.status = 'completed' and e.good >= 1)
$$;
revoke all on function pgflows.audit(text) from public;
