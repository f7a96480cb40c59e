-- The operators, and the two functions behind them that exist for no other purpose.

-- `c ?> t !> e`: what ?> answers waits for its else. It says how long its then-branch is, so that nothing is parsed.
create or replace function df._if_then(condition text, then_branch text)
returns text language sql immutable strict parallel safe as $$
  select '{"?>":' || length(t.node) || ',"then":' || t.node || ',"condition":' || df._envelope(condition) || '}'
  from (select df._envelope(then_branch) as node) t
$$;

create or replace function df._else(half text, else_branch text)
returns text language plpgsql immutable strict parallel safe as $$
declare
  v_length integer := (regexp_match(left(half, 24), '^[{]"[?]>":([0-9]+),"then":'))[1]::integer;
  v_rest text;
begin
  if v_length is null then
    raise exception 'an else (!>) without its if-then (?>)' using errcode = 'PF104',
      hint = 'all df operators have the same precedence, from left to right: put parentheses around each branch';
  end if;
  v_rest := substr(half, 15 + length(v_length::text));
  return '{"node_type":"IF","left_node":' || left(v_rest, v_length) || ',"right_node":' || df._envelope(else_branch)
    || ',"condition_node":' || left(substr(v_rest, v_length + 14), -1) || '}';
end $$;

create or replace function df._loop_forever(body text)
returns text language sql immutable strict parallel safe as $$ select df.loop(body, null) $$;

-- Only a superuser may write to pg_catalog, so operators go where the search path of most sessions looks.
do $$
declare
  v_schema text := case
    when to_regnamespace('public') is not null and has_schema_privilege('public', 'create') then 'public' else 'df'
  end;
  v_operator record;
begin
  for v_operator in
    select * from (values
      ('~>', 'df.seq', true), ('|=>', 'df.as', true), ('&', 'df.join', true), ('|', 'df.race', true),
      ('?>', 'df._if_then', true), ('!>', 'df._else', true), ('@>', 'df._loop_forever', false)
    ) o(name, function, binary_form)
  loop
    if not exists (
      select from pg_operator o
      where o.oprname = v_operator.name and o.oprnamespace = v_schema::regnamespace and o.oprright = 'text'::regtype
        and o.oprleft = case when v_operator.binary_form then 'text'::regtype else 0 end
    ) then
      execute format('create operator %I.%s (function = %s, %s rightarg = text)', v_schema, v_operator.name,
        v_operator.function, case when v_operator.binary_form then 'leftarg = text,' else '' end);
    end if;
  end loop;
end $$;
