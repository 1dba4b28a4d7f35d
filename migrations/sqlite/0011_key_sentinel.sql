-- A known ciphertext under each master key, decrypted at start so that a wrong key is found before the first write.
create table key_sentinel (
  id         text not null,
  key_id     text not null,
  ciphertext blob not null,
  constraint key_sentinel_pkey primary key (id)
) strict;
