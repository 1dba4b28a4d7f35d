-- How a Proxmox host is reached; its credential is a reference into `secrets`.
create table host_connections (
  host_id     text not null,
  name        text not null,
  address     text not null,
  port        integer not null,
  "user"      text not null,
  auth        text not null,
  secret_id   text not null,
  fingerprint text,
  verify_ssl  integer not null check (verify_ssl in (0, 1)),
  ssh_port    integer not null,
  updated_at  integer not null,
  constraint host_connections_pkey primary key (host_id)
) strict;
create unique index host_connections_name_key on host_connections (name);
