-- Who runs which operation: a claim has a holder, an epoch that only grows, and an end in the database's time.
-- A released claim keeps its row, so that its epoch is never used again.
create table claims (
  id         text not null,
  runner     text not null,
  epoch      integer not null,
  expires_at integer not null,
  constraint claims_pkey primary key (id)
) strict;
