//! The plan of a restore: into a container of its own that takes the old one's place, or over the old one.

use serde::{Deserialize, Serialize};

use super::{GuestRef, Health};
use crate::application::Loss;
use crate::value::BackupId;

/// Makes an application's container anew from an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// What the archive is restored into: a new number or, in place, the original's.
    pub guest: GuestRef,
    /// The application's container when this was planned.
    pub original: GuestRef,
    /// How the original had gone missing by then; `None` when it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    pub way: RestoreWay,
    pub backup: BackupId,
    /// The storage that holds the archive, as the guest's node sees it.
    pub storage: String,
    /// The archive's volume id.
    pub archive: String,
    /// The storage that takes the disks.
    pub disk_storage: String,
    /// Whether it is to run afterwards, as it did before.
    pub was_running: bool,
    /// How the restored container is judged.
    pub health: Health,
    /// A caller was shown this very number beforehand: the container gets no other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agreed: bool,
    /// Volumes whose contents the archive does not have, and snapshots, are destroyed all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lose_volumes: bool,
}

/// What becomes of the container that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreWay {
    /// It can be started again until the restored one has been seen healthy; then it is destroyed.
    Swap,
    /// It is overwritten. Proxmox destroys its disks before it has extracted the archive.
    InPlace,
}
