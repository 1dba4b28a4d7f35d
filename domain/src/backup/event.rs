//! What has happened to a backup: a stored promise, with a fixture per version.

use std::str::FromStr;

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::plan::{GuestRef, Kind};
use crate::value::{ApplicationId, OperationId, ScheduleId, UserId, ValueError};

/// A backup's events; the aggregate's id is its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Someone wants it; the operation that makes it is planned in the same append.
    Requested(Box<Requested>),
    Completed {
        operation: OperationId,
        archive: Archive,
    },
    /// It could not be made. `absent`: no archive of it was left on the storage.
    Failed {
        operation: OperationId,
        problem: String,
        absent: bool,
    },
    /// An operation that uses or removes it began.
    OperationBegan {
        operation: OperationId,
        kind: Kind,
    },
    /// That operation is over and the backup as it was; `problem` when it failed.
    OperationEnded {
        operation: OperationId,
        problem: Option<String>,
    },
    /// Its archive is gone.
    Deleted {
        operation: OperationId,
    },
}

/// All that is known when a backup is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    pub application: ApplicationId,
    pub owner: UserId,
    pub operation: OperationId,
    /// The guest that it is made of.
    pub guest: GuestRef,
    pub storage: String,
    pub mode: Mode,
    pub compression: Compression,
    /// The schedule that asked for it; `None` when a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Scheduled>,
}

/// Which schedule asked for a backup, and when. Moments are µs since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    pub schedule: ScheduleId,
    /// The time that had come; the schedule fires once for it.
    pub due: i64,
    /// When it was asked for: retention counts by this.
    pub at: i64,
}

/// The archive as it was found on its storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its volume id, e.g. `local:backup/vzdump-lxc-104-2026_11_23-20_24_34.tar.zst`.
    pub volume: String,
    /// Bytes; `None` when the storage did not say.
    pub size: Option<u64>,
    /// The mode in which it was really made.
    pub mode: Mode,
}

/// How a running container is kept still while it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From a snapshot; falls back to `Suspend` where the storage has none.
    #[default]
    Snapshot,
    Suspend,
    /// Stopped, and started again.
    Stop,
}

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    #[default]
    Zstd,
    Gzip,
    Lzo,
}

impl Mode {
    /// The name that the contract and Proxmox both use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
        }
    }
}

impl FromStr for Mode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "snapshot" => Ok(Self::Snapshot),
            "suspend" => Ok(Self::Suspend),
            "stop" => Ok(Self::Stop),
            _ => Err(ValueError {
                code: "backup.type_invalid",
                message: "a backup is one of snapshot, suspend, stop".to_owned(),
            }),
        }
    }
}

impl Compression {
    /// The name that the contract and Proxmox both use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Lzo => "lzo",
        }
    }
}

impl FromStr for Compression {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            "lzo" => Ok(Self::Lzo),
            _ => Err(ValueError {
                code: "backup.compression_invalid",
                message: "a compression is one of zstd, gzip, lzo".to_owned(),
            }),
        }
    }
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Requested(_) => "backup.requested",
            Self::Completed { .. } => "backup.completed",
            Self::Failed { .. } => "backup.failed",
            Self::OperationBegan { .. } => "backup.operation_began",
            Self::OperationEnded { .. } => "backup.operation_ended",
            Self::Deleted { .. } => "backup.deleted",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
