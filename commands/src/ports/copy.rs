//! What a copy of a container, or one from an archive, is made with.

use proximity_domain::{Hostname, Vmid};

/// A full copy of a container; Proxmox gives its interfaces new MACs and keeps everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCopy {
    pub vmid: Vmid,
    pub hostname: Hostname,
    /// Carries the copy's own marker: without one of its own it would keep the source's.
    pub description: String,
    /// Of the source, which may run then.
    pub snapshot: Option<String>,
}

/// A container that is made from an archive of one; it keeps its addresses and all else of its
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRestored {
    pub vmid: Vmid,
    /// The archive's volume id.
    pub archive: String,
    /// Takes the disks: without one named, Proxmox takes `local`, wherever they were.
    pub storage: String,
    /// Carries the marker: the archive has the one of the container that was stored.
    pub description: String,
    /// The resource pool that it is put into.
    pub pool: Option<String>,
    /// The container of this number is replaced: its disks go once the new ones are made, before the
    /// archive is extracted.
    pub overwrite: bool,
}
