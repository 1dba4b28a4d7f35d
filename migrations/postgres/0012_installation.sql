-- Facts about this installation, such as its identity.
create table installation (
  key   text not null,
  value text not null,
  constraint installation_pkey primary key (key)
);
