//! What a copy of a container is made with.

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
