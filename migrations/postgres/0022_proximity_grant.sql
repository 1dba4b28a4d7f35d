-- `select proximity_grant('role')` lets a role serve: it may extend the log, never change it.
--
-- Run by the owner after each migration (the owner keeps the tables; the server logs in as `role`):
--   create role proximity_serving login password '…';
--   select proximity_grant('proximity_serving');
--
-- Everything that is not the log is a side table, those of later migrations included.
create or replace function proximity_grant(serving name) returns void language plpgsql as $$
declare
  found record;
begin
  execute format('grant usage on schema %I to %I', current_schema(), serving);
  for found in
    select c.relname::name as name,
           case
             when c.relname in ('events', 'appends', 'seals') then 'select, insert'
             when c.relname = 'schema_migrations' or c.relkind = 'v' then 'select'
             when c.relname = 'meta' then 'select, update'
             when c.relname = 'claims' then 'select, insert, update'
             else 'select, insert, update, delete'
           end as rights
    from pg_class c
    where c.relnamespace = current_schema()::regnamespace
      and c.relkind in ('r', 'v') and c.relowner = current_user::regrole
  loop
    execute format('grant %s on %I to %I', found.rights, found.name, serving);
  end loop;
  execute format('grant execute on all functions in schema %I to %I', current_schema(), serving);
end
$$;
