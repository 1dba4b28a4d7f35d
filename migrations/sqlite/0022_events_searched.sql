-- What the log is looked through by: each index gives the events that fit in order of position.
-- The expressions are those of the queries, letter by letter; an index serves no other.
create index events_type        on events (event_type);
create index events_actor       on events (metadata ->> 'actor');
create index events_owner       on events (metadata ->> 'owner');
create index events_request     on events (metadata ->> 'request');
create index events_correlation on events (metadata ->> 'correlation');
create index events_recorded_at on events (recorded_at);
