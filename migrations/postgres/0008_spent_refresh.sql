-- Refresh tokens that were exchanged: seeing one again means that its family, the session, was stolen.
create table spent_refresh (
  hash     bytea not null,
  family   text not null,
  user_id  text not null,
  spent_at bigint not null,
  constraint spent_refresh_pkey primary key (hash)
);
create index spent_refresh_family_idx on spent_refresh (family);
