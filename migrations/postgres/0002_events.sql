-- The log: one row for each event, in one dense order, never changed once written.
-- The columns from aggregate_type to metadata are the layout that postgres-es reads; json, not jsonb,
-- because it keeps the bytes that were sealed.
create table events (
  position       bigint not null,
  aggregate_type text   not null,
  aggregate_id   text   not null,
  sequence       bigint not null,
  event_type     text   not null,
  event_version  text   not null,
  payload        json   not null,
  metadata       json   not null,
  recorded_at    bigint not null, -- microseconds since 1970
  constraint events_pkey primary key (aggregate_type, aggregate_id, sequence),
  constraint events_position_key unique (position),
  constraint events_position_check check (position >= 1),
  constraint events_sequence_check check (sequence >= 1)
);

create function events_are_never_changed() returns trigger language plpgsql as $$
begin
  raise exception 'events are never changed or deleted';
end
$$;

create trigger events_are_never_changed before update or delete or truncate on events
  for each statement execute function events_are_never_changed();
