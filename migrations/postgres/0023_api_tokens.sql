-- What programs use in a user's name: only the hash of a token is kept. Times are microseconds since 1970.
-- A token that was revoked has no row; its history is in the log.
create table api_tokens (
  id           text not null,
  user_id      text not null,
  hash         bytea not null,
  name         text not null,
  scopes       text not null, -- words with spaces between them
  created_at   bigint not null,
  expires_at   bigint not null,
  last_used_at bigint,
  constraint api_tokens_pkey primary key (id)
);
create unique index api_tokens_hash_key on api_tokens (hash);
create index api_tokens_user_id_idx on api_tokens (user_id);
create index api_tokens_expires_at_idx on api_tokens (expires_at);

-- A token with its user: every request is judged by one row of this.
create view api_token_users as
select
  t.id, t.hash, t.scopes, t.expires_at, t.last_used_at, t.user_id,
  u.role, u.disabled
from api_tokens t
join users u on u.id = t.user_id;
