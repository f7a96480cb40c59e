-- Workflow no_step, version 1
-- The input's address, whose zip the caller may have left out.
-- checksum bf2a3da83f0f21c2a68654f828f45676db1238756b201fa3ef8460baa0b63182
--
-- Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
--     psql "$DSN" -f no_step.sql
--     psql "$DSN" -v input='{…}' -f no_step.sql      with an input of your own
-- The steps are called at the URLs below. They were compiled from Python; edit that.
\set ON_ERROR_STOP on
\if :{?input}
\else
  \set input '{"fullName": "O''Hara", "address": {"city": "Zürich"}, "tags": ["a\\\\b", "{sys_label}"]}'
\endif

begin;

select pgflows.define(
  'no_step',
  '1',
  df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', 0) v) select pgflows.finish(''{sys_instance_id}'', ''main'', 0, jsonb_build_object(''city'', v->''@in''->''address''->''city'', ''zip'', coalesce(v->''@in''->''address''->''zip'', ''"8000"''::jsonb))) as output from s0'),
  '{"steps": [], "flow": [{"type": "return", "value": {"type": "model", "model": "Address", "fields": {"city": {"type": "field", "of": {"type": "field", "of": {"type": "input"}, "name": "address"}, "name": "city"}, "zip": {"type": "field", "of": {"type": "field", "of": {"type": "input"}, "name": "address"}, "name": "zip"}}}}]}'::jsonb,
  E'{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"fullName": {"examples": ["O''Hara"], "title": "Fullname", "type": "string"}, "amount": {"default": 1.5, "exclusiveMinimum": 0, "title": "Amount", "type": "number"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "address": {"$ref": "#/$defs/Address"}, "tags": {"examples": [["a\\\\b", "{sys_label}"]], "items": {"type": "string"}, "title": "Tags", "type": "array"}}, "required": ["fullName", "address"], "title": "Request", "type": "object"}'::jsonb,
  '{"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}'::jsonb,
  'bf2a3da83f0f21c2a68654f828f45676db1238756b201fa3ef8460baa0b63182'
);

select pgflows.start('no_step', :'input'::jsonb) as instance_id;

commit;
