-- What an engine's side can read of a statement's result. A statement that was wrapped to answer JSON raises 0A000 for any
-- other; then the engine runs it again, unwrapped, and fails the node with a message that names the value.
--   _readable     the text of a result, if numbers and nesting are within what Python's parser takes
--   _unreadable   raises; for a value that the wrapping itself finds out of range

create or replace function df._unreadable()
returns text language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the engine cannot read this result' using errcode = '0A000';
end $$;

-- 4 300 digits, and less than 900 levels. A long text of digits, or many short lists, are looked at twice for nothing.
create or replace function df._readable(p_text text)
returns text language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if octet_length(p_text) > 900 then
    if octet_length(p_text) > 4300 and strpos(translate(p_text, '123456789', '000000000'), repeat('0', 4301)) > 0 then
      perform df._unreadable();
    end if;
    if octet_length(p_text) - octet_length(translate(p_text, '[{', '')) > 900 and p_text::jsonb @? '$.**{900}' then
      perform df._unreadable();
    end if;
  end if;
  return p_text;
end $$;
