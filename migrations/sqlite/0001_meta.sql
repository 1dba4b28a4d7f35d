-- Facts about the log itself, one per row: its incarnation, and a row that readiness probes write to.
create table meta (
  key   text not null,
  value text not null,
  constraint meta_pkey primary key (key)
) strict;

insert into meta (key, value) values ('incarnation', lower(hex(randomblob(16)))), ('probe', '0');
