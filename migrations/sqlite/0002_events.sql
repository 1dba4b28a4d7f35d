-- The log: one row for each event, in one dense order, never changed once written.
-- The columns from aggregate_type to metadata are the layout that sqlite-es reads.
create table events (
  position       integer primary key,
  aggregate_type text    not null,
  aggregate_id   text    not null,
  sequence       integer not null,
  event_type     text    not null,
  event_version  text    not null,
  payload        text    not null,
  metadata       text    not null,
  recorded_at    integer not null, -- microseconds since 1970
  constraint events_position_check check (position >= 1),
  constraint events_sequence_check check (sequence >= 1),
  constraint events_payload_check check (json_valid(payload)),
  constraint events_metadata_check check (json_valid(metadata))
) strict;

-- What makes a stream a stream: of any number of racers for one sequence, one wins.
create unique index events_pkey on events (aggregate_type, aggregate_id, sequence);

create trigger events_are_never_changed before update on events
begin
  select raise(abort, 'events are never changed');
end;

create trigger events_are_never_deleted before delete on events
begin
  select raise(abort, 'events are never deleted');
end;
