-- Facts about the log itself, one per row: its incarnation, and a row that readiness probes write to.
create table meta (
  key   text not null,
  value text not null,
  constraint meta_pkey primary key (key)
);

insert into meta (key, value) values ('incarnation', gen_random_uuid()::text), ('probe', '0');
