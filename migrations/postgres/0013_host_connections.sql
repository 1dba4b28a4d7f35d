-- How a Proxmox host is reached; its credential is a reference into `secrets`.
-- `suspended` says why nothing is sent to it; `token_id` is set when `auth` is `token`.
create table host_connections (
  host_id     text not null,
  name        text not null,
  address     text not null,
  port        bigint not null,
  "user"      text not null,
  auth        text not null,
  token_id    text,
  secret_id   text not null,
  cluster     text not null,
  is_active   boolean not null,
  is_default  boolean not null,
  suspended   text,
  fingerprint text,
  verify_ssl  boolean not null,
  ssh_port    bigint not null,
  updated_at  bigint not null,
  constraint host_connections_pkey primary key (host_id),
  constraint host_connections_name_key unique (name)
);
