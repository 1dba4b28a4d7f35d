-- The end of each Proxmox task's log, as it was when its step ended: Proxmox itself forgets tasks.
create table task_logs (
  operation   text   not null,
  upid        text   not null,
  step        text   not null,
  direction   text   not null, -- act, undo
  outcome     text   not null, -- OK, what Proxmox said instead, or unknown
  lines       text   not null, -- a JSON array of the last lines, without what looks like a secret
  recorded_at bigint not null, -- microseconds since 1970
  constraint task_logs_pkey primary key (operation, upid)
);
