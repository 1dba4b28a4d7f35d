//! What a container that was made from an image runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The process of a container; one from an OS template has an init of its own and says neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The command that it starts with.
    pub entrypoint: Option<String>,
    /// Variables by name; values may be secrets.
    pub environment: BTreeMap<String, String>,
}

impl Process {
    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        self.entrypoint.is_none() && self.environment.is_empty()
    }
}

/// Leaves the values out: they may be secrets.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("variables", &self.environment.keys())
            .finish_non_exhaustive()
    }
}

/// What the configuration in an archive says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchivedConfig {
    pub description: Option<String>,
    pub process: Process,
    /// Where the volumes were mounted whose contents it has beside the root disk's; without a `/` at
    /// the end.
    pub held: BTreeSet<String>,
    /// The disks that a restore makes, by key (`rootfs`, `mp0`): their sizes as the file says them, such
    /// as `8G`; empty where it does not.
    pub sizes: BTreeMap<String, String>,
    /// Directories and devices of the node that were mounted, by key. Proxmox lets nobody but
    /// `root@pam` himself restore them.
    pub of_the_node: BTreeMap<String, String>,
}

impl ArchivedConfig {
    /// Whether the archive has the contents of the volume that is mounted there.
    pub fn holds(&self, path: &str) -> bool {
        self.held.contains(path.trim_end_matches('/'))
    }
}
