-- `select proximity_forget_appends(id, micros)` forgets how old appends were identified: those whose id
-- is below and whose time is before. It never forgets one younger than a day, whatever it is asked, and
-- runs in its owner's rights, since the serving role may not delete from `appends` by itself.
create function proximity_forget_appends(p_below uuid, p_before bigint) returns bigint
language plpgsql security definer as $$
declare
  latest bigint := (extract(epoch from clock_timestamp() - interval '1 day') * 1000000)::bigint;
  gone bigint;
begin
  delete from appends where append_id < p_below and recorded_at < least(p_before, latest);
  get diagnostics gone = row_count;
  return gone;
end
$$;
-- What it touches is decided here, not by the search path of whoever calls it.
do $$
begin
  execute format(
    'alter function proximity_forget_appends(uuid, bigint) set search_path = %I, pg_temp',
    current_schema()
  );
  revoke all on function proximity_forget_appends(uuid, bigint) from public;
end
$$;
