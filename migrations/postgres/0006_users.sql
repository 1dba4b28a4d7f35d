-- Accounts: identity and role are read from here, never from a projection.
-- `username` and `email` are stored folded to lower case; times are microseconds since 1970.
create table users (
  id            text not null,
  username      text not null,
  email         text,
  password_hash text not null,
  role          text not null,
  disabled      boolean not null,
  first_name    text,
  last_name     text,
  created_at    bigint not null,
  updated_at    bigint not null,
  constraint users_pkey primary key (id),
  constraint users_username_key unique (username),
  constraint users_email_key unique (email)
);
