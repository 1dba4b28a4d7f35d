-- A secret is only ever stored under a master key that has a sentinel: a rotation ends by taking the old
-- key's sentinel away, which fails while anything is under it, and which nobody can seal under later.
create unique index key_sentinel_key_id_key on key_sentinel (key_id);
alter table secrets
  add constraint secrets_key_id_fkey foreign key (key_id) references key_sentinel (key_id);
create index secrets_key_id_idx on secrets (key_id);

-- A new master key under the one before it; there only while a rotation runs, and only where several
-- servers share the database.
create table key_transit (
  generation text  not null,
  under      text  not null,
  since      text,
  wrapped    bytea not null,
  constraint key_transit_pkey primary key (generation)
);
