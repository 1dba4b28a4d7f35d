-- A session with its user: every request is judged by one row of this.
create view session_users as
select
  s.id, s.access_hash, s.access_expires_at, s.last_used_at, s.user_id,
  u.role, u.disabled
from sessions s
join users u on u.id = s.user_id;
