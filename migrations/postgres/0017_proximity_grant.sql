-- `select proximity_grant('role')` lets a role serve: it may extend the log, never change it.
--
-- Run by the owner after each migration (the owner keeps the tables; the server logs in as `role`):
--   create role proximity_serving login password '…';
--   select proximity_grant('proximity_serving');
create function proximity_grant(serving name) returns void language plpgsql as $$
declare
  name text;
begin
  execute format('grant usage on schema %I to %I', current_schema(), serving);
  foreach name in array array['events', 'appends', 'seals'] loop
    execute format('grant select, insert on %I to %I', name, serving);
  end loop;
  execute format('grant select on schema_migrations, session_users to %I', serving);
  execute format('grant select, update on meta to %I', serving);
  execute format('grant select, insert, update on claims to %I', serving);
  foreach name in array array[
    'users', 'sessions', 'spent_refresh', 'ownership', 'secrets', 'key_sentinel', 'installation',
    'host_connections', 'host_usage', 'setup_tokens', 'login_attempts'
  ] loop
    execute format('grant select, insert, update, delete on %I to %I', name, serving);
  end loop;
  execute format('grant execute on all functions in schema %I to %I', current_schema(), serving);
end
$$;
