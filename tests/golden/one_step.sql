-- Workflow one_step, version 1
--
-- checksum 16efda842ab63435a179570b0cca2983b4466f9a158c44cdd9f2d46a6118aa43
--
-- Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
--     psql "$DSN" -f one_step.sql
--     psql "$DSN" -v input='{…}' -f one_step.sql      with an input of your own
-- The steps are called at the URLs below. They were compiled from Python; edit that.
\set ON_ERROR_STOP on
\if :{?input}
\else
  \set input '{"fullName": "O''Hara", "address": {"city": "Zürich"}, "tags": ["a\\\\b", "{sys_label}"]}'
\endif

begin;

select pgflows.define(
  'one_step',
  '1',
  df.seq(
    df.seq(
      df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', 0) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', 0, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''charge#1'', ''step'', ''charge'', ''var'', ''@r'', ''input'', v->''@in'', ''try'', false))) r'), 'e'),
      df.http('http://my-app:8000/steps/charge', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 90)
    ),
    df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select pgflows.finish(''{sys_instance_id}'', ''main'', $e.seq, v->''@r'') as output from s0')
  ),
  '{"steps": [{"key": "charge#1", "step": "charge", "retry": {"max_retries": 3, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 60.0}], "flow": [{"type": "step", "key": "charge#1", "step": "charge", "result": "@r", "input": {"type": "input"}}, {"type": "return", "value": {"type": "result", "name": "@r"}}]}'::jsonb,
  E'{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"fullName": {"examples": ["O''Hara"], "title": "Fullname", "type": "string"}, "amount": {"default": 1.5, "exclusiveMinimum": 0, "title": "Amount", "type": "number"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "address": {"$ref": "#/$defs/Address"}, "tags": {"examples": [["a\\\\b", "{sys_label}"]], "items": {"type": "string"}, "title": "Tags", "type": "array"}}, "required": ["fullName", "address"], "title": "Request", "type": "object"}'::jsonb,
  '{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"number": {"title": "Number", "type": "string"}, "address": {"$ref": "#/$defs/Address"}}, "required": ["number", "address"], "title": "Receipt", "type": "object"}'::jsonb,
  '16efda842ab63435a179570b0cca2983b4466f9a158c44cdd9f2d46a6118aa43'
);

select pgflows.start('one_step', :'input'::jsonb) as instance_id;

commit;
