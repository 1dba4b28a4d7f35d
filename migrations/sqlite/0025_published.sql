-- Which heads of the sealed chain each server has published of each life of the log: heads that are
-- lost where they were published are missed then.
--
-- Of blocks before `each_from` only some were published; `first_block` was, and the last one of them.
create table published (
  server        text   not null,
  incarnation   text   not null,
  first_block   integer not null,
  each_from     integer not null,
  last_block    integer not null,
  last_position integer not null,
  constraint published_pkey primary key (server, incarnation)
) strict;
