//! The migrations that this program carries, in order, and the hash that tells a changed one.

use sha2::{Digest, Sha256};

/// One file of `migrations/`.
pub(crate) struct Migration {
    pub version: i64,
    pub name: &'static str,
    pub sql: &'static str,
}

impl Migration {
    /// SHA-256 of the text, in hex.
    pub fn checksum(&self) -> String {
        crate::hex(&Sha256::digest(self.sql.as_bytes()))
    }
}

macro_rules! migrations {
    ($store:literal: $($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../migrations/", $store, "/", $name, ".sql")),
        }),*]
    };
}

pub(crate) static SQLITE: &[Migration] = migrations!("sqlite":
    1 "0001_meta",
    2 "0002_events",
    3 "0003_appends",
    4 "0004_claims",
    5 "0005_seals",
    6 "0006_users",
    7 "0007_sessions",
    8 "0008_spent_refresh",
    9 "0009_ownership",
    10 "0010_secrets",
    11 "0011_key_sentinel",
    12 "0012_installation",
    13 "0013_host_connections",
    14 "0014_setup_tokens",
    15 "0015_login_attempts",
    16 "0016_host_usage",
    17 "0017_session_users",
    18 "0018_kept_answers",
    19 "0019_api_tokens",
    20 "0020_seal_lives",
    21 "0021_key_generations",
    22 "0022_events_searched",
    23 "0023_task_logs",
    24 "0024_refused_tries",
    25 "0025_published",
);

pub(crate) static POSTGRES: &[Migration] = migrations!("postgres":
    1 "0001_meta",
    2 "0002_events",
    3 "0003_appends",
    4 "0004_claims",
    5 "0005_seals",
    6 "0006_users",
    7 "0007_sessions",
    8 "0008_spent_refresh",
    9 "0009_ownership",
    10 "0010_secrets",
    11 "0011_key_sentinel",
    12 "0012_installation",
    13 "0013_host_connections",
    14 "0014_setup_tokens",
    15 "0015_login_attempts",
    16 "0016_proximity_append",
    17 "0017_proximity_grant",
    18 "0018_host_usage",
    19 "0019_session_users",
    20 "0020_kept_answers",
    21 "0021_forget_appends",
    22 "0022_proximity_grant",
    23 "0023_api_tokens",
    24 "0024_seal_lives",
    25 "0025_key_generations",
    26 "0026_events_searched",
    27 "0027_task_logs",
    28 "0028_refused_tries",
    29 "0029_published",
);

/// The newest version in a list.
pub(crate) fn newest(migrations: &[Migration]) -> i64 {
    migrations.iter().map(|m| m.version).max().unwrap_or(0)
}

/// What is to be applied on top of `applied` (version, checksum); refuses a newer or changed schema.
pub(crate) fn missing(
    migrations: &'static [Migration],
    applied: &[(i64, String)],
) -> Result<Vec<&'static Migration>, crate::Error> {
    let known = newest(migrations);
    for (version, checksum) in applied {
        match migrations.iter().find(|m| m.version == *version) {
            None => return Err(crate::Error::NewerSchema { found: *version, known }),
            Some(migration) if migration.checksum() != *checksum => {
                return Err(crate::Error::MigrationChanged { version: *version });
            }
            Some(_) => {}
        }
    }
    Ok(migrations.iter().filter(|m| !applied.iter().any(|(v, _)| *v == m.version)).collect())
}
