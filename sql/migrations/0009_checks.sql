-- As in 0008_df_each.sql: what only our own functions write need not be checked at each statement.
alter table pgflows.instances drop constraint instances_status_check;
alter table pgflows.step_runs drop constraint step_runs_status_check;
-- These have other parameters now, or answer in other columns.
drop function if exists pgflows._open(text, jsonb, text, text, jsonb);
drop function if exists pgflows._fits_plainly(jsonb, pgflows.workflows);

-- Whether an input surely fits a simple model, as one condition that is parsed once. Null where the model is not simple.
create function pgflows._plain_input(p_required text[], p_fields text[], p_types text[])
returns jsonpath language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when p_fields @> p_required then ('$.type() == "object"' || string_agg(format(
    case when f.name = any (p_required) then ' && $.%1$s.type() == "%2$s"' else ' && (!(exists($.%1$s)) || $.%1$s.type() == "%2$s")' end,
    to_json(f.name), f.type), ''))::jsonpath end
  from unnest(p_fields, p_types) f(name, type)
$$;
alter table pgflows.workflows add column plain_input jsonpath generated always as (pgflows._plain_input(required, fields, types)) stored;
