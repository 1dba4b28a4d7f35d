-- The sealed chain over the events' stored bytes: one row for each block, each signed over the one before.
-- `leaves` holds the SHA-256 of each event of the block, so that a changed event is named by its position.
create table seals (
  block          integer not null,
  first_position integer not null,
  last_position  integer not null,
  leaves         blob not null,
  hash           blob not null,
  key_id         text not null,
  signature      blob not null,
  sealed_at      integer not null,
  constraint seals_pkey primary key (block)
) strict;
create unique index seals_last_position_key on seals (last_position);
