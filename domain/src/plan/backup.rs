//! Plans about backups: make one, or remove one.

use serde::{Deserialize, Serialize};

use super::GuestRef;
use crate::backup::{Compression, Mode};
use crate::value::BackupId;

/// Stores a container as one archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPlan {
    pub guest: GuestRef,
    pub backup: BackupId,
    /// The storage of the guest's node that takes the archive.
    pub storage: String,
    /// As asked for; Proxmox may fall back to another one.
    pub mode: Mode,
    pub compression: Compression,
    /// Whether it ran, so that it runs again afterwards.
    pub was_running: bool,
}

/// Removes a backup's archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDeletePlan {
    /// The guest that the archive was made of; it may be gone.
    pub guest: GuestRef,
    pub backup: BackupId,
    pub storage: String,
    /// The archive's volume id; `None` when none was recorded.
    pub archive: Option<String>,
    /// The operation that made it: archives of a creation that was given up carry it in their notes.
    pub made_by: crate::value::OperationId,
    /// Whether the container was running, which this operation does not change.
    pub was_running: bool,
    /// The application is gone: nothing but the backup itself is reserved.
    pub detached: bool,
    /// The creation was undone, and its archive seen to be absent: Proxmox is not asked.
    pub nothing: bool,
}
