-- Who owns what: the one place that decides whether a thing exists for a caller.
create table ownership (
  kind  text not null,
  id    text not null,
  owner text not null,
  constraint ownership_pkey primary key (kind, id)
) strict;
create index ownership_owner_idx on ownership (owner, kind);
