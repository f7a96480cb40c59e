-- Workflow many_steps, version 1
-- More steps than a list of SEQs would be deep.
-- checksum 021e4769e9b18e99eee2e5e4eb1061378a4a8c20e644a9abb984dd3eb3e88c8f
--
-- Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
--     psql "$DSN" -f many_steps.sql
--     psql "$DSN" -v input='{…}' -f many_steps.sql      with an input of your own
-- The steps are called at the URLs below. They were compiled from Python; edit that.
\set ON_ERROR_STOP on
\if :{?input}
\else
  \set input '{}'
\endif

begin;

select pgflows.define(
  'many_steps',
  '1',
  df.seq(
    df.seq(
      df.seq(
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', 0) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', 0, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#1'', ''step'', ''pack'', ''var'', ''a'', ''input'', v->''@in'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        ),
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#2'', ''step'', ''pack'', ''var'', ''b'', ''input'', v->''a'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        )
      ),
      df.seq(
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#3'', ''step'', ''pack'', ''var'', ''c'', ''input'', v->''b'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        ),
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#4'', ''step'', ''pack'', ''var'', ''d'', ''input'', v->''c'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        )
      )
    ),
    df.seq(
      df.seq(
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#5'', ''step'', ''pack'', ''var'', ''e'', ''input'', v->''d'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        ),
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#6'', ''step'', ''pack'', ''var'', ''f'', ''input'', v->''e'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        )
      ),
      df.seq(
        df.seq(
          df.as(df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#7'', ''step'', ''pack'', ''var'', ''@r'', ''input'', v->''f'', ''try'', false))) r'), 'e'),
          df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35)
        ),
        df.sql('/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select pgflows.finish(''{sys_instance_id}'', ''main'', $e.seq, v->''@r'') as output from s0')
      )
    )
  ),
  '{"steps": [{"key": "pack#1", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#2", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#3", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#4", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#5", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#6", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}, {"key": "pack#7", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}], "flow": [{"type": "step", "key": "pack#1", "step": "pack", "result": "a", "input": {"type": "input"}}, {"type": "step", "key": "pack#2", "step": "pack", "result": "b", "input": {"type": "result", "name": "a"}}, {"type": "step", "key": "pack#3", "step": "pack", "result": "c", "input": {"type": "result", "name": "b"}}, {"type": "step", "key": "pack#4", "step": "pack", "result": "d", "input": {"type": "result", "name": "c"}}, {"type": "step", "key": "pack#5", "step": "pack", "result": "e", "input": {"type": "result", "name": "d"}}, {"type": "step", "key": "pack#6", "step": "pack", "result": "f", "input": {"type": "result", "name": "e"}}, {"type": "step", "key": "pack#7", "step": "pack", "result": "@r", "input": {"type": "result", "name": "f"}}, {"type": "return", "value": {"type": "result", "name": "@r"}}]}'::jsonb,
  '{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}, "Grade": {"enum": ["fine", "coarse"], "title": "Grade", "type": "string"}}, "properties": {"text": {"default": "", "title": "Text", "type": "string"}, "number": {"default": 0, "title": "Number", "type": "number"}, "count": {"default": 0, "title": "Count", "type": "integer"}, "flag": {"default": false, "title": "Flag", "type": "boolean"}, "nothing": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Nothing"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "grade": {"$ref": "#/$defs/Grade", "default": "fine"}, "word": {"default": "a", "enum": ["a", "b"], "title": "Word", "type": "string"}, "words": {"default": [], "items": {"type": "string"}, "title": "Words", "type": "array"}, "address": {"$ref": "#/$defs/Address", "default": {"city": "Ulm", "zip": "8000"}}, "addresses": {"default": [], "items": {"$ref": "#/$defs/Address"}, "title": "Addresses", "type": "array"}, "free": {"default": null, "title": "Free"}}, "title": "Everything", "type": "object"}'::jsonb,
  '{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}, "Grade": {"enum": ["fine", "coarse"], "title": "Grade", "type": "string"}}, "properties": {"text": {"default": "", "title": "Text", "type": "string"}, "number": {"default": 0, "title": "Number", "type": "number"}, "count": {"default": 0, "title": "Count", "type": "integer"}, "flag": {"default": false, "title": "Flag", "type": "boolean"}, "nothing": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Nothing"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "grade": {"$ref": "#/$defs/Grade", "default": "fine"}, "word": {"default": "a", "enum": ["a", "b"], "title": "Word", "type": "string"}, "words": {"default": [], "items": {"type": "string"}, "title": "Words", "type": "array"}, "address": {"$ref": "#/$defs/Address", "default": {"city": "Ulm", "zip": "8000"}}, "addresses": {"default": [], "items": {"$ref": "#/$defs/Address"}, "title": "Addresses", "type": "array"}, "free": {"default": null, "title": "Free"}}, "title": "Everything", "type": "object"}'::jsonb,
  '021e4769e9b18e99eee2e5e4eb1061378a4a8c20e644a9abb984dd3eb3e88c8f'
);

select pgflows.start('many_steps', :'input'::jsonb) as instance_id;

commit;
