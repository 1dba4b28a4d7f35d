-- How a Proxmox host is reached; its credential is a reference into `secrets`.
-- `suspended` says why nothing is sent to it; `token_id` is set when `auth` is `token`.
create table host_connections (
  host_id     text not null,
  name        text not null,
  address     text not null,
  port        integer not null,
  "user"      text not null,
  auth        text not null,
  token_id    text,
  secret_id   text not null,
  cluster     text not null,
  is_active   integer not null check (is_active in (0, 1)),
  is_default  integer not null check (is_default in (0, 1)),
  suspended   text,
  fingerprint text,
  verify_ssl  integer not null check (verify_ssl in (0, 1)),
  ssh_port    integer not null,
  updated_at  integer not null,
  constraint host_connections_pkey primary key (host_id)
) strict;
create unique index host_connections_name_key on host_connections (name);
