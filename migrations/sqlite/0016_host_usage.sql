-- Which applications are on which host: a host that is in use cannot be deleted.
-- The row is written with the application's first event and deleted with its last.
create table host_usage (
  application text not null,
  host_id     text not null,
  constraint host_usage_pkey primary key (application)
) strict;
create index host_usage_host_id_idx on host_usage (host_id);
