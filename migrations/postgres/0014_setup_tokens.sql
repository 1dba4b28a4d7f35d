-- One-time tokens that let the first administrator register.
create table setup_tokens (
  hash       bytea not null,
  created_at bigint not null,
  expires_at bigint not null,
  used_at    bigint,
  constraint setup_tokens_pkey primary key (hash)
);
