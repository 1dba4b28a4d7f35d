-- The sealed chain over the events' stored bytes: one row for each block, each signed over the one before.
-- `leaves` holds the SHA-256 of each event of the block, so that a changed event is named by its position.
create table seals (
  block          bigint not null,
  first_position bigint not null,
  last_position  bigint not null,
  leaves         bytea not null,
  hash           bytea not null,
  key_id         text not null,
  signature      bytea not null,
  sealed_at      bigint not null,
  constraint seals_pkey primary key (block),
  constraint seals_last_position_key unique (last_position)
);
