-- Workflow literals, version 1
-- Every kind of literal.
-- checksum e7138e544c90141b3b6bd2a22aa0d3350f0c99d83f11d0954edf04ca8a46f106
--
-- Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
--     psql "$DSN" -f literals.sql
--     psql "$DSN" -v input='{…}' -f literals.sql      with an input of your own
-- The steps are called at the URLs below. They were compiled from Python; edit that.
\set ON_ERROR_STOP on
\if :{?input}
\else
  \set input '{"fullName": "O''Hara", "address": {"city": "Zürich"}, "tags": ["a\\\\b", "{sys_label}"]}'
\endif

begin;

select pgflows.define(
  'literals',
  '1',
  df.seq(
    df.seq(
      df.seq(
        df.as(df.sql(E'/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', 0) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', 0, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''charge#1'', ''step'', ''charge'', ''var'', null, ''input'', v->''@in'', ''try'', false, ''retry'', E''\\x7b"max_retries":1,"initial_delay_seconds":1.0,"max_delay_seconds":60.0,"backoff":"linear","jitter":true}''::jsonb))) r'), 'e'),
        df.http('http://my-app:8000/steps/charge', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 90)
      ),
      df.as(df.sql(E'/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select r.c, r.seq, r.keys->>0 as key_1, r.bodies->>0 as body_1, r.signatures->>0 as signature_1 from s0, pgflows.put(''{sys_instance_id}'', ''main'', $e.seq, s0.v, true, jsonb_build_array(jsonb_build_object(''key'', ''pack#1'', ''step'', ''pack'', ''var'', null, ''input'', E''\\x7b"text":"it''''s a \\\\\\\\ and a \\x7bsys_label} and \\x24r1 and\\\\ttab\\\\nand \\\\u0001 and 東京 𝄞 \\\\u202e","number":-0.1,"count":123456789012345678901234567890,"flag":true,"nothing":null,"day":"2024-02-29","grade":"coarse","word":"b","words":["\\x7b","\\x24","''''"],"free":\\x7b"k\\x7b":[1,1.5,null,true,"\\x24e.seq"]}}''::jsonb, ''try'', false))) r'), 'e')
    ),
    df.seq(
      df.http('http://my-app:8000/steps/pack', 'POST', '$e.body_1', '{"content-type":"application/json","X-DF-Instance-ID":"{sys_instance_id}","X-Pgflows-Step-Key":"$e.key_1","X-Pgflows-Seq":"$e.seq","X-Pgflows-Signature":"$e.signature_1"}'::jsonb, 35),
      df.sql(E'/*pgflows*/ with s0 as materialized (select pgflows.take(''{sys_instance_id}'', ''main'', $e.seq) v) select pgflows.finish(''{sys_instance_id}'', ''main'', $e.seq, jsonb_build_object(''text'', v->''@in''->''fullName'', ''number'', ''0.0''::jsonb, ''count'', ''0''::jsonb, ''flag'', ''false''::jsonb, ''nothing'', ''null''::jsonb, ''day'', ''"2024-01-31"''::jsonb, ''grade'', ''"coarse"''::jsonb, ''word'', ''"a"''::jsonb, ''words'', ''[]''::jsonb, ''address'', E''\\x7b"city":"Ulm","zip":"8000"}''::jsonb, ''addresses'', ''[]''::jsonb, ''free'', E''[\\x7b"a":"\\x24"}]''::jsonb)) as output from s0')
    )
  ),
  E'{"steps": [{"key": "charge#1", "step": "charge", "retry": {"max_retries": 1, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "linear", "jitter": true}, "timeout": 60.0}, {"key": "pack#1", "step": "pack", "retry": {"max_retries": 0, "initial_delay_seconds": 1.0, "max_delay_seconds": 60.0, "backoff": "exponential", "jitter": true}, "timeout": 5}], "flow": [{"type": "step", "key": "charge#1", "step": "charge", "result": null, "input": {"type": "input"}}, {"type": "step", "key": "pack#1", "step": "pack", "result": null, "input": {"type": "model", "model": "Everything", "fields": {"text": {"type": "literal", "value": "it''s a \\\\ and a {sys_label} and $r1 and\\ttab\\nand \\u0001 and 東京 𝄞 \u202e"}, "number": {"type": "literal", "value": -0.1}, "count": {"type": "literal", "value": 123456789012345678901234567890}, "flag": {"type": "literal", "value": true}, "nothing": {"type": "literal", "value": null}, "day": {"type": "literal", "value": "2024-02-29"}, "grade": {"type": "literal", "value": "coarse"}, "word": {"type": "literal", "value": "b"}, "words": {"type": "literal", "value": ["{", "$", "''"]}, "free": {"type": "literal", "value": {"k{": [1, 1.5, null, true, "$e.seq"]}}}}}, {"type": "return", "value": {"type": "model", "model": "Everything", "fields": {"text": {"type": "field", "of": {"type": "input"}, "name": "name"}, "number": {"type": "literal", "value": 0.0}, "count": {"type": "literal", "value": 0}, "flag": {"type": "literal", "value": false}, "nothing": {"type": "literal", "value": null}, "day": {"type": "literal", "value": "2024-01-31"}, "grade": {"type": "literal", "value": "coarse"}, "word": {"type": "literal", "value": "a"}, "words": {"type": "literal", "value": []}, "address": {"type": "literal", "value": {"city": "Ulm", "zip": "8000"}}, "addresses": {"type": "literal", "value": []}, "free": {"type": "literal", "value": [{"a": "$"}]}}}}]}'::jsonb,
  E'{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}}, "properties": {"fullName": {"examples": ["O''Hara"], "title": "Fullname", "type": "string"}, "amount": {"default": 1.5, "exclusiveMinimum": 0, "title": "Amount", "type": "number"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "address": {"$ref": "#/$defs/Address"}, "tags": {"examples": [["a\\\\b", "{sys_label}"]], "items": {"type": "string"}, "title": "Tags", "type": "array"}}, "required": ["fullName", "address"], "title": "Request", "type": "object"}'::jsonb,
  '{"$defs": {"Address": {"properties": {"city": {"examples": ["Zürich"], "title": "City", "type": "string"}, "zip": {"default": "8000", "title": "Zip", "type": "string"}}, "required": ["city"], "title": "Address", "type": "object"}, "Grade": {"enum": ["fine", "coarse"], "title": "Grade", "type": "string"}}, "properties": {"text": {"default": "", "title": "Text", "type": "string"}, "number": {"default": 0, "title": "Number", "type": "number"}, "count": {"default": 0, "title": "Count", "type": "integer"}, "flag": {"default": false, "title": "Flag", "type": "boolean"}, "nothing": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Nothing"}, "day": {"default": "2024-01-31", "format": "date", "title": "Day", "type": "string"}, "grade": {"$ref": "#/$defs/Grade", "default": "fine"}, "word": {"default": "a", "enum": ["a", "b"], "title": "Word", "type": "string"}, "words": {"default": [], "items": {"type": "string"}, "title": "Words", "type": "array"}, "address": {"$ref": "#/$defs/Address", "default": {"city": "Ulm", "zip": "8000"}}, "addresses": {"default": [], "items": {"$ref": "#/$defs/Address"}, "title": "Addresses", "type": "array"}, "free": {"default": null, "title": "Free"}}, "title": "Everything", "type": "object"}'::jsonb,
  'e7138e544c90141b3b6bd2a22aa0d3350f0c99d83f11d0954edf04ca8a46f106'
);

select pgflows.start('literals', :'input'::jsonb) as instance_id;

commit;
