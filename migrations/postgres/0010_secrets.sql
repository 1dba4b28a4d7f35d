-- Ciphertexts, one row for each version of a secret, under a data key wrapped by the master key.
-- The record, column and version are the associated data: a ciphertext moved to another row does not decrypt.
create table secrets (
  id           text not null,
  record_table text not null,
  record_id    text not null,
  column_name  text not null,
  version      bigint not null,
  key_id       text not null,
  wrapped_key  bytea not null,
  ciphertext   bytea not null,
  created_at   bigint not null,
  constraint secrets_pkey primary key (id),
  constraint secrets_record_key unique (record_table, record_id, column_name, version)
);
