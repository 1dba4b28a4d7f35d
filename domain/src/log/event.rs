//! What has happened to the log itself: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The log's own events; stream `log/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first event of a new life: everything before it came from a backup.
    Restored(Restored),
    /// Whoever looked at the differences lets the program act again.
    RestoreConfirmed { incarnation: Uuid },
}

/// A restoration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The life that begins with this event.
    pub incarnation: Uuid,
    /// The life that the backup was taken from.
    pub previous: Uuid,
    /// Position of the last event that was restored.
    pub position: u64,
    /// When the backup was taken, in microseconds since 1970.
    pub taken_at: i64,
    /// SHA-256 of the restored log, in hexadecimal digits, as the backup names it.
    pub digest: String,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Restored(_) => "log.restored",
            Self::RestoreConfirmed { .. } => "log.restore_confirmed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
