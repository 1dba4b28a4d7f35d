-- Refresh tokens that were exchanged: seeing one again means that its family, the session, was stolen.
create table spent_refresh (
  hash     blob not null,
  family   text not null,
  user_id  text not null,
  spent_at integer not null,
  constraint spent_refresh_pkey primary key (hash)
) strict;
create index spent_refresh_family_idx on spent_refresh (family);
