-- Ciphertexts, one row for each version of a secret, under a data key wrapped by the master key.
-- The record, column and version are the associated data: a ciphertext moved to another row does not decrypt.
create table secrets (
  id           text not null,
  record_table text not null,
  record_id    text not null,
  column_name  text not null,
  version      integer not null,
  key_id       text not null,
  wrapped_key  blob not null,
  ciphertext   blob not null,
  created_at   integer not null,
  constraint secrets_pkey primary key (id)
) strict;
create unique index secrets_record_key on secrets (record_table, record_id, column_name, version);
