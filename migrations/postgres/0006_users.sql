-- Accounts: identity and role are read from here, never from a projection.
-- `username` and `email` are folded to lower case, `…_shown` is as it was written; times are microseconds since 1970.
create table users (
  id            text not null,
  username      text not null,
  username_shown text not null,
  email         text,
  email_shown   text,
  password_hash text not null,
  role          text not null,
  disabled      boolean not null,
  first_name    text not null,
  last_name     text not null,
  created_at    bigint not null,
  updated_at    bigint not null,
  constraint users_pkey primary key (id),
  constraint users_username_key unique (username),
  constraint users_email_key unique (email)
);
