-- Failed logins, counted for each account and source in windows of time.
create table login_attempts (
  account      text not null,
  source       text not null,
  window_start bigint not null,
  failures     bigint not null,
  constraint login_attempts_pkey primary key (account, source, window_start)
);
create index login_attempts_source_idx on login_attempts (source, window_start);
create index login_attempts_window_idx on login_attempts (window_start);
