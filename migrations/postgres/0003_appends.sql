-- Every accepted append: what makes resubmitting it harmless, and what an idempotency key answers again.
create table appends (
  append_id       uuid   not null,
  actor           text,
  idempotency_key text,
  fingerprint     text,            -- keyed hash of the request body
  answer          text,            -- JSON; null when it showed a one-time secret
  first_position  bigint not null,
  last_position   bigint not null,
  recorded_at     bigint not null, -- microseconds since 1970
  constraint appends_pkey primary key (append_id)
);

create unique index appends_key_key on appends (actor, idempotency_key) where idempotency_key is not null;
