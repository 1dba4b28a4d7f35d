-- One-time tokens that let the first administrator register.
create table setup_tokens (
  hash       blob not null,
  created_at integer not null,
  expires_at integer not null,
  used_at    integer,
  constraint setup_tokens_pkey primary key (hash)
) strict;
