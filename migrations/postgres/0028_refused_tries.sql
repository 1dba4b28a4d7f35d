-- How often a request was refused under an idempotency key: each refusal ends the tries before it, which
-- may still be on their way, and the next try is stored under the next number.
create table refused_tries (
  actor       text   not null,
  key         text   not null,
  number      bigint  not null,
  recorded_at bigint  not null, -- microseconds since 1970
  constraint refused_tries_pkey primary key (actor, key)
);
create index refused_tries_recorded_at_idx on refused_tries (recorded_at);
