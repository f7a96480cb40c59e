-- Workflow paths, version 2.0
-- Fields of the input, with its defaults, and of results; aliases; a name bound twice.
--
-- A second paragraph: it's */ not -- the end; \! and $e.seq {sys_label} stay text.
-- checksum 32b8c742d80fd57316d5895643a3fd8321c6a4fe31e97c039127326c9d797321
--
-- Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
--     psql "$DSN" -f paths.sql
--     psql "$DSN" -v input='{…}' -f paths.sql      with an input of your own
-- The steps are called at the URLs below. They were compiled from Python; edit that.
\set ON_ERROR_STOP on
\if :{?input}
\else
  \set input '{"fullName": "O''Hara", "address": {"city": "Zürich"}, "tags": ["a\\\\b", "{sys_label}"]}'
\endif

begin;

select pgflows.define(
  'paths',
  '2.0',
  df.seq(
    df.seq(
      df.seq(
        df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', 0) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', 0, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''charge#1'', ''step'', ''charge'', ''var'', ''receipt'', ''input'', v->''@in'', ''try'', false))) r'), 'e'),
        df.http('http://my-app:8000/steps/charge', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 90)
      ),
      df.seq(
        df.as(df.sql(E'/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#1'', ''step'', ''pack'', ''var'', ''packed'', ''input'', jsonb_build_object(''text'', v->''@in''->''fullName'', ''number'', coalesce(v->''@in''->''amount'', ''1.5''::jsonb), ''day'', coalesce(v->''@in''->''day'', ''"2024-01-31"''::jsonb), ''words'', coalesce(v->''@in''->''tags'', ''[]''::jsonb), ''address'', v->''receipt''->''address'', ''addresses'', jsonb_build_array(v->''@in''->''address'', E''\\x7b"city":"Bern"}''::jsonb)), ''try'', false))) r'), 'e'),
        df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
      )
    ),
    df.seq(
      df.seq(
        df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#2'', ''step'', ''pack'', ''var'', ''packed'', ''input'', v->''packed'', ''try'', false))) r'), 'e'),
        df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
      ),
      df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select pgflows.finish(''{sys_instance_id}'', ''main'', $e.seq, jsonb_build_object(''number'', v->''packed''->''text'', ''address'', v->''packed''->''address'')) as output from s0')
    )
  ),
  '{"steps": [{"key": "charge#1", "step": "charge", "retry": {"max_retries": 3, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 60.0}, {"key": "pack#1", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#2", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}], "flow": [{"type": "step", "key": "charge#1", "step": "charge", "result": "receipt", "input": {"type": "input"}}, {"type": "step", "key": "pack#1", "step": "pack", "result": "packed", "input": {"type": "model", "model": "Everything", "fields": {"text": {"type": "field", "of": {"type": "input"}, "name": "name"}, "number": {"type": "field", "of": {"type": "input"}, "name": "amount"}, "day": {"type": "field", "of": {"type": "input"}, "name": "day"}, "words": {"type": "field", "of": {"type": "input"}, "name": "tags"}, "address": {"type": "field", "of": {"type": "result", "name": "receipt"}, "name": "address"}, "addresses": {"type": "list", "items": [{"type": "field", "of": {"type": "input"}, "name": "address"}, {"type": "model", "model": "Address", "fields": {"city": {"type": "literal", "value": "Bern"}}}]}}}}, {"type": "step", "key": "pack#2", "step": "pack", "result": "packed", "input": {"type": "result", "name": "packed"}}, {"type": "return", "value": {"type": "model", "model": "Receipt", "fields": {"number": {"type": "field", "of": {"type": "result", "name": "packed"}, "name": "text"}, "address": {"type": "field", "of": {"type": "result", "name": "packed"}, "name": "address"}}}}]}'::jsonb,
  E'{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"fullName": {"examples": ["O''Hara"], "title": "Fullname", "type": "string"}, "amount": {"default": 1.5, "exclusiveMinimum": 0, "title": "Amount", "type": "number"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "address": {"$ref": "#/$defs/Address"}, "tags": {"examples": [["a\\\\b", "{sys_label}"]], "items": {"type": "string"}, "title": "Tags", "type": "array"}}, "required": ["fullName", "address"], "title": "Request", "type": "object"}'::jsonb,
  '{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"number": {"title": "Number", "type": "string"}, "address": {"$ref": "#/$defs/Address"}}, "required": ["number", "address"], "title": "Receipt", "type": "object"}'::jsonb,
  '32b8c742d80fd57316d5895643a3fd8321c6a4fe31e97c039127326c9d797321'
);

select pgflows.start('paths', :'input'::jsonb) as instance_id;

commit;
