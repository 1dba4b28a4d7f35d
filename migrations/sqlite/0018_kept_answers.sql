-- The first answer under each idempotency key, to be given again; a day or two later it is forgotten.
-- `body` is null when the answer showed a one-time secret, or was not worth keeping.
create table kept_answers (
  actor        text not null,
  key          text not null,
  fingerprint  text not null,    -- keyed hash of the request
  status       integer not null,
  content_type text not null,
  body         blob,
  location     text,
  position     integer not null, -- of the log; 0: the call wrote nothing
  recorded_at  integer not null, -- microseconds since 1970
  constraint kept_answers_pkey primary key (actor, key)
) strict;
create index kept_answers_recorded_at_idx on kept_answers (recorded_at);
