//! An id type per aggregate, so that one can never be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ValueError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $code:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                Uuid::parse_str(text).map(Self).map_err(|_| ValueError::new($code, "this is not a valid id"))
            }
        }
    };
}

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident, $code:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                match text.parse::<i64>() {
                    // The canonical spelling only, so that one thing has one address.
                    Ok(number) if number > 0 && number.to_string() == text => Ok(Self(number)),
                    _ => Err(ValueError::new($code, "this is not a valid id")),
                }
            }
        }
    };
}

uuid_id! {
    /// An operation (saga).
    OperationId, "operation.id_invalid"
}
uuid_id! {
    /// A stored secret; events carry this, never the secret.
    SecretId, "secret.id_invalid"
}
uuid_id! {
    /// A login session.
    SessionId, "session.id_invalid"
}
integer_id! {
    /// A user: 1, 2, 3 … (the contract's `pk`).
    UserId, "user.id_invalid"
}
integer_id! {
    /// A registered Proxmox host: 1, 2, 3 …
    HostId, "host.id_invalid"
}
integer_id! {
    /// A backup: 1, 2, 3 …
    BackupId, "backup.id_invalid"
}
integer_id! {
    /// A schedule of backups: 1, 2, 3 …
    ScheduleId, "backup_schedule.id_invalid"
}

/// An application: `{catalog_id}-{8 hex digits}`; the words `discover` and `adopt` can never be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApplicationId(String);

impl ApplicationId {
    /// The id of an application made from this catalog entry; `random` is the caller's.
    pub fn new(catalog_id: &str, random: u32) -> Result<Self, ValueError> {
        format!("{catalog_id}-{random:08x}").parse()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApplicationId {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || ValueError::new("application.id_invalid", "this is not a valid id");
        let (catalog, random) = text.rsplit_once('-').ok_or_else(refuse)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let word =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let valid = (1..=64).contains(&catalog.len())
            && catalog.bytes().all(word)
            && random.len() == 8
            && random.bytes().all(hex);
        if valid { Ok(Self(text.to_owned())) } else { Err(refuse()) }
    }
}

impl TryFrom<String> for ApplicationId {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<ApplicationId> for String {
    fn from(id: ApplicationId) -> Self {
        id.0
    }
}

impl fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
