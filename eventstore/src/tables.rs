//! The side tables as data: names, keys and typed columns, one constant for each file in `migrations/`.

use crate::side::ColumnType::{Boolean, Bytes, Integer, Text};
use crate::side::{Column, ColumnType, Table};

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column { name, kind }
}

/// Every side table; `Options::new` checks them against the database.
pub static ALL: &[&Table] = &[
    &USERS,
    &SESSIONS,
    &SPENT_REFRESH,
    &OWNERSHIP,
    &SECRETS,
    &KEY_SENTINEL,
    &KEY_TRANSIT,
    &INSTALLATION,
    &HOST_CONNECTIONS,
    &HOST_USAGE,
    &SESSION_USERS,
    &SETUP_TOKENS,
    &LOGIN_ATTEMPTS,
    &KEPT_ANSWERS,
    &REFUSED_TRIES,
    &API_TOKENS,
    &API_TOKEN_USERS,
    &TASK_LOGS,
];

/// Accounts: identity and role are read from here, never from a projection.
///
/// `username` and `email` are folded to lower case, `…_shown` is as it was written; times are microseconds since 1970.
pub static USERS: Table = Table {
    name: "users",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("username", Text),
        column("username_shown", Text),
        column("email", Text),
        column("email_shown", Text),
        column("password_hash", Text),
        column("role", Text),
        column("disabled", Boolean),
        column("first_name", Text),
        column("last_name", Text),
        column("created_at", Integer),
        column("updated_at", Integer),
    ],
};

/// Logins: tokens are kept as hashes only, and every request looks here.
///
/// A session that is over has no row; times are microseconds since 1970.
pub static SESSIONS: Table = Table {
    name: "sessions",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("user_id", Text),
        column("access_hash", Bytes),
        column("refresh_hash", Bytes),
        column("created_at", Integer),
        column("last_used_at", Integer),
        column("access_expires_at", Integer),
        column("refresh_expires_at", Integer),
        column("source", Text),
        column("user_agent", Text),
    ],
};

/// Refresh tokens that were exchanged: seeing one again means that its family was stolen.
pub static SPENT_REFRESH: Table = Table {
    name: "spent_refresh",
    key: &["hash"],
    columns: &[
        column("hash", Bytes),
        column("family", Text),
        column("user_id", Text),
        column("spent_at", Integer),
    ],
};

/// Who owns what: the one place that decides whether a thing exists for a caller.
pub static OWNERSHIP: Table = Table {
    name: "ownership",
    key: &["kind", "id"],
    columns: &[column("kind", Text), column("id", Text), column("owner", Text)],
};

/// Ciphertexts, one row for each version of a secret, under a data key wrapped by the master key.
///
/// The record, column and version are the associated data: a ciphertext moved to another row does not decrypt.
pub static SECRETS: Table = Table {
    name: "secrets",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("record_table", Text),
        column("record_id", Text),
        column("column_name", Text),
        column("version", Integer),
        column("key_id", Text),
        column("wrapped_key", Bytes),
        column("ciphertext", Bytes),
        column("created_at", Integer),
    ],
};

/// A known ciphertext under each master key, decrypted at start so that a wrong key is found before the first write.
pub static KEY_SENTINEL: Table = Table {
    name: "key_sentinel",
    key: &["id"],
    columns: &[column("id", Text), column("key_id", Text), column("ciphertext", Bytes)],
};

/// A new master key under the one before it, from which other servers take it up during a rotation.
pub static KEY_TRANSIT: Table = Table {
    name: "key_transit",
    key: &["generation"],
    columns: &[
        column("generation", Text),
        column("under", Text),
        column("since", Text),
        column("wrapped", Bytes),
    ],
};

/// Facts about this installation, such as its identity.
pub static INSTALLATION: Table = Table {
    name: "installation",
    key: &["key"],
    columns: &[column("key", Text), column("value", Text)],
};

/// How a Proxmox host is reached; its credential is a reference into `secrets`.
pub static HOST_CONNECTIONS: Table = Table {
    name: "host_connections",
    key: &["host_id"],
    columns: &[
        column("host_id", Text),
        column("name", Text),
        column("address", Text),
        column("port", Integer),
        column("user", Text),
        column("auth", Text),
        column("token_id", Text),
        column("secret_id", Text),
        column("cluster", Text),
        column("is_active", Boolean),
        column("is_default", Boolean),
        column("suspended", Text),
        column("fingerprint", Text),
        column("verify_ssl", Boolean),
        column("ssh_port", Integer),
        column("updated_at", Integer),
    ],
};

/// Which applications are on which host: a host that is in use cannot be deleted. An operation on what an
/// application left there that holds nothing any more stands here by its own id, until it has ended.
pub static HOST_USAGE: Table = Table {
    name: "host_usage",
    key: &["application"],
    columns: &[column("application", Text), column("host_id", Text)],
};

/// A session with its user, for reading only: every request is judged by one row of this view.
pub static SESSION_USERS: Table = Table {
    name: "session_users",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("access_hash", Bytes),
        column("access_expires_at", Integer),
        column("last_used_at", Integer),
        column("user_id", Text),
        column("role", Text),
        column("disabled", Boolean),
    ],
};

/// One-time tokens that let the first administrator register.
pub static SETUP_TOKENS: Table = Table {
    name: "setup_tokens",
    key: &["hash"],
    columns: &[
        column("hash", Bytes),
        column("created_at", Integer),
        column("expires_at", Integer),
        column("used_at", Integer),
    ],
};

/// Failed logins, counted for each account and source in windows of time.
pub static LOGIN_ATTEMPTS: Table = Table {
    name: "login_attempts",
    key: &["account", "source", "window_start"],
    columns: &[
        column("account", Text),
        column("source", Text),
        column("window_start", Integer),
        column("failures", Integer),
    ],
};

/// First answers under idempotency keys, to be given again.
///
/// `body` is null when the answer showed a one-time secret; times are microseconds since 1970.
pub static KEPT_ANSWERS: Table = Table {
    name: "kept_answers",
    key: &["actor", "key"],
    columns: &[
        column("actor", Text),
        column("key", Text),
        column("fingerprint", Text),
        column("status", Integer),
        column("content_type", Text),
        column("body", Bytes),
        column("location", Text),
        column("position", Integer),
        column("recorded_at", Integer),
    ],
};

/// How often a request was refused under an idempotency key.
///
/// Times are microseconds since 1970.
pub static REFUSED_TRIES: Table = Table {
    name: "refused_tries",
    key: &["actor", "key"],
    columns: &[
        column("actor", Text),
        column("key", Text),
        column("number", Integer),
        column("recorded_at", Integer),
    ],
};

/// What programs use in a user's name: hashes only; one that was revoked has no row.
///
/// Times are microseconds since 1970.
pub static API_TOKENS: Table = Table {
    name: "api_tokens",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("user_id", Text),
        column("hash", Bytes),
        column("name", Text),
        column("scopes", Text),
        column("created_at", Integer),
        column("expires_at", Integer),
        column("last_used_at", Integer),
    ],
};

/// A token with its user, for reading only: every request is judged by one row of this view.
pub static API_TOKEN_USERS: Table = Table {
    name: "api_token_users",
    key: &["id"],
    columns: &[
        column("id", Text),
        column("hash", Bytes),
        column("scopes", Text),
        column("expires_at", Integer),
        column("last_used_at", Integer),
        column("user_id", Text),
        column("role", Text),
        column("disabled", Boolean),
    ],
};

/// The end of each Proxmox task's log, as it was when its step ended; `lines` is a JSON array.
pub static TASK_LOGS: Table = Table {
    name: "task_logs",
    key: &["operation", "upid"],
    columns: &[
        column("operation", Text),
        column("upid", Text),
        column("step", Text),
        column("direction", Text),
        column("outcome", Text),
        column("lines", Text),
        column("recorded_at", Integer),
    ],
};
