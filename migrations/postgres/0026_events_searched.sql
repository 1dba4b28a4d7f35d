-- What the log is looked through by: each index gives the events that fit in order of position.
create index events_type        on events (event_type collate "C", position);
create index events_actor       on events ((metadata ->> 'actor'), position);
create index events_owner       on events ((metadata ->> 'owner'), position);
create index events_request     on events ((metadata ->> 'request'), position);
create index events_correlation on events ((metadata ->> 'correlation'), position);
create index events_recorded_at on events (recorded_at, position);
