-- How a Proxmox host is reached; its credential is a reference into `secrets`.
create table host_connections (
  host_id     text not null,
  name        text not null,
  address     text not null,
  port        bigint not null,
  "user"      text not null,
  auth        text not null,
  secret_id   text not null,
  fingerprint text,
  verify_ssl  boolean not null,
  ssh_port    bigint not null,
  updated_at  bigint not null,
  constraint host_connections_pkey primary key (host_id),
  constraint host_connections_name_key unique (name)
);
