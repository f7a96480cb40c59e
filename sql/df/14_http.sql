-- Building nodes that call over HTTP.
--   http, http_multipart → _check_call   what can be said of a call before it runs

-- Answers the method in capitals. A URL that holds a brace may get its scheme from a variable.
create or replace function df._check_call(p_url text, p_method text, p_timeout integer, p_methods text[])
returns text language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if p_url !~ '[{]' and (p_url !~ '://' or lower(split_part(p_url, '://', 1) collate "C") not in ('http', 'https')) then
    raise exception 'Blocked: unsupported URL scheme ''%''. Only http and https are allowed', split_part(p_url, '://', 1)
      using errcode = 'PF104', detail = jsonb_build_object('field', 'url', 'expected', 'http:// or https://')::text;
  elsif p_method is null or upper(p_method collate "C") <> all (p_methods) then
    raise exception 'Invalid HTTP method%: %. Must be one of %', case when 'GET' = any (p_methods) then '' else ' for multipart' end,
      p_method, array_to_string(p_methods, ', ') using errcode = 'PF104',
      detail = jsonb_build_object('field', 'method', 'expected', array_to_string(p_methods, ', '))::text;
  elsif p_timeout is null or p_timeout <= 0 then
    raise exception 'Timeout must be positive' using errcode = 'PF104',
      detail = jsonb_build_object('field', 'timeout_seconds', 'expected', 'at least 1')::text;
  end if;
  return upper(p_method collate "C");
end $$;

create or replace function df.http(
  url text, method text default 'POST', body text default null, headers jsonb default null,
  timeout_seconds integer default 30
) returns text language plpgsql immutable parallel safe as $$
begin
  return df._configured('HTTP', '{"url":' || pg_catalog.to_json(url)::text
    || ',"method":"' || df._check_call(url, method, timeout_seconds, array['GET', 'POST', 'PUT', 'DELETE', 'PATCH'])
    || '","body":' || coalesce(pg_catalog.to_json(body)::text, 'null') || ',"headers":' || coalesce(df._compact(headers), 'null')
    || ',"timeout_seconds":' || timeout_seconds::text || '}');
end $$;

create or replace function df.http_multipart(
  url text, method text default 'POST', parts jsonb default null, headers jsonb default null,
  timeout_seconds integer default 30
) returns text language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_method text := df._check_call(url, method, timeout_seconds, array['POST', 'PUT', 'PATCH']);
begin
  if jsonb_typeof(parts) is distinct from 'array' or parts = '[]' then
    raise exception '%', case when parts is null then 'parts is required and cannot be NULL'
      when parts = '[]' then 'parts must contain at least one part' else 'parts must be a JSON array of part objects' end using errcode = 'PF104',
      detail = jsonb_build_object('field', 'parts', 'expected', 'an array of {name, data_b64, …}')::text;
  end if;
  return df._configured('HTTP_MULTIPART', '{"url":' || pg_catalog.to_json(url)::text || ',"method":"' || v_method
    || '","parts":' || df._compact(parts) || ',"headers":' || coalesce(df._compact(headers), 'null')
    || ',"timeout_seconds":' || timeout_seconds::text || '}');
end $$;
