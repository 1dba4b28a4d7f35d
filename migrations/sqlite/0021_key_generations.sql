-- A secret is only ever stored under a master key that has a sentinel: a rotation ends by taking the old
-- key's sentinel away, which fails while anything is under it, and which nobody can seal under later.
create unique index key_sentinel_key_id_key on key_sentinel (key_id);

create table secrets_under_keys (
  id           text not null,
  record_table text not null,
  record_id    text not null,
  column_name  text not null,
  version      integer not null,
  key_id       text not null,
  wrapped_key  blob not null,
  ciphertext   blob not null,
  created_at   integer not null,
  constraint secrets_pkey primary key (id),
  constraint secrets_key_id_fkey foreign key (key_id) references key_sentinel (key_id)
) strict;
insert into secrets_under_keys select
  id, record_table, record_id, column_name, version, key_id, wrapped_key, ciphertext, created_at
from secrets;
drop table secrets;
alter table secrets_under_keys rename to secrets;
create unique index secrets_record_key on secrets (record_table, record_id, column_name, version);
create index secrets_key_id_idx on secrets (key_id);

-- A new master key under the one before it; there only while a rotation runs, and only where several
-- servers share the database.
create table key_transit (
  generation text not null,
  under      text not null,
  since      text,
  wrapped    blob not null,
  constraint key_transit_pkey primary key (generation)
) strict;
