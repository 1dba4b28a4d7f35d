-- Logins: tokens are kept as hashes only, and every request looks here.
-- A session that is over has no row; its history is in the log. Times are microseconds since 1970.
create table sessions (
  id                 text not null,
  user_id            text not null,
  access_hash        bytea not null,
  refresh_hash       bytea not null,
  created_at         bigint not null,
  last_used_at       bigint not null,
  access_expires_at  bigint not null,
  refresh_expires_at bigint not null,
  source             text not null,
  user_agent         text not null,
  constraint sessions_pkey primary key (id),
  constraint sessions_access_hash_key unique (access_hash),
  constraint sessions_refresh_hash_key unique (refresh_hash)
);
create index sessions_user_id_idx on sessions (user_id);
create index sessions_refresh_expires_at_idx on sessions (refresh_expires_at);
