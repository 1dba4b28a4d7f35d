//! What goes with a container when it is destroyed, its data volumes and its snapshots, what of that a
//! backup does not hold, and what of a backup only root restores.

use std::fmt;

use proximity_domain::{NodeName, Vmid};

use crate::ports::{ArchivedConfig, GuestConfig, Hypervisor, HypervisorError};

/// A volume that goes with its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataVolume {
    /// Its key in the configuration: `mp0`, or `unused0` when nothing mounts it.
    key: String,
    volume: String,
    /// Where the container sees it.
    path: Option<String>,
}

impl DataVolume {
    pub(crate) fn id(&self) -> &str {
        &self.volume
    }
}

impl fmt::Display for DataVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} ({} at {path})", self.key, self.volume),
            None => write!(f, "{} ({})", self.key, self.volume),
        }
    }
}

/// What is destroyed with a container beside its root disk.
#[derive(Debug, Default)]
pub(crate) struct Belongings {
    volumes: Vec<DataVolume>,
    /// Names of its snapshots, without those that nobody has to miss.
    snapshots: Vec<String>,
}

impl Belongings {
    /// Asks for what the configuration alone does not say: a mount point that is taken away from a
    /// container that runs is left out of it at once, and its volume is there all the same.
    pub(crate) async fn of(
        hypervisor: &dyn Hypervisor,
        node: &NodeName,
        vmid: Vmid,
        config: &GuestConfig,
    ) -> Result<Self, HypervisorError> {
        let current = hypervisor.current_config(node, vmid).await?;
        let mut snapshots = hypervisor.snapshots(node, vmid).await?;
        snapshots.retain(|name| !is_passing(name));
        Ok(Self { volumes: with_current(config, current.as_ref()), snapshots })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.snapshots.is_empty()
    }

    /// What a restore of the archive does not bring back, for a sentence: volumes that were not marked
    /// for backups when it was made, that came later or are mounted nowhere, and every snapshot.
    pub(crate) fn not_held(mut self, archived: &ArchivedConfig) -> Option<String> {
        self.volumes.retain(|volume| !volume.path.as_ref().is_some_and(|p| archived.holds(p)));
        let volumes = self.volumes.iter().map(DataVolume::to_string);
        let snapshots = self.snapshots.iter().map(|name| format!("snapshot {name}"));
        let lost: Vec<String> = volumes.chain(snapshots).collect();
        (!lost.is_empty()).then(|| lost.join(", "))
    }
}

/// Whether a snapshot is one that nobody has to keep: `px` and an operation's number is what a copy of ours
/// is made from, which goes by itself or is named to a person when the copy was given up, and `vzdump` is what Proxmox makes a backup from.
fn is_passing(name: &str) -> bool {
    let operation = name.strip_prefix("px").unwrap_or_default();
    name == "vzdump" || operation.len() == 32 && operation.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Why nobody but `root@pam` himself can restore this, if so.
pub(crate) fn needs_root(archived: &ArchivedConfig) -> Option<String> {
    let mounts = archived.of_the_node.iter().map(|(key, path)| format!("{key} ({path})"));
    let mounts = mounts.collect::<Vec<_>>().join(", ");
    (!mounts.is_empty()).then(|| {
        format!(
            "{mounts} of the container in the backup are directories or devices of the node, which \
             Proxmox restores for nobody but `root@pam` himself, who logs in with a password"
        )
    })
}

/// The volumes of a configuration, and those that it has only until the next start: they are mounted
/// nowhere then.
fn with_current(config: &GuestConfig, current: Option<&GuestConfig>) -> Vec<DataVolume> {
    let mut volumes = of(config);
    for leaving in current.map(of).unwrap_or_default() {
        if !volumes.iter().any(|volume| volume.volume == leaving.volume) {
            volumes.push(DataVolume { path: None, ..leaving });
        }
    }
    volumes
}

/// Every volume beside the root disk. Directories and devices of the node are none: they stay.
pub(crate) fn of(config: &GuestConfig) -> Vec<DataVolume> {
    let volume = |(key, value): (&String, &String)| {
        let is_mounted = is_numbered(key, "mp");
        if !is_mounted && !is_numbered(key, "unused") {
            return None;
        }
        // The volume stands first, without a name or with its own.
        let volume = value.split(',').find_map(|part| match part.split_once('=') {
            None => Some(part),
            Some(("volume", volume)) => Some(volume),
            Some(_) => None,
        })?;
        if volume.starts_with('/') {
            return None;
        }
        let path = value.split(',').find_map(|part| part.strip_prefix("mp="));
        Some(DataVolume {
            key: key.clone(),
            volume: volume.to_owned(),
            path: path.map(str::to_owned).filter(|_| is_mounted),
        })
    };
    config.rest.iter().filter_map(volume).collect()
}

fn is_numbered(key: &str, word: &str) -> bool {
    key.strip_prefix(word).is_some_and(|rest| rest.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &[(&str, &str)]) -> GuestConfig {
        GuestConfig {
            digest: String::new(),
            description: None,
            hostname: None,
            lock: None,
            protection: true,
            unprivileged: true,
            rest: rest.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn what_the_archive_does_not_hold_is_named_and_nothing_of_the_node() {
        let config = config(&[
            ("rootfs", "local:104/vm-104-disk-0.raw,size=8G"),
            ("mp0", "local:104/vm-104-disk-1.raw,mp=/data,size=1G"),
            ("mp1", "volume=local:104/vm-104-disk-2.raw,mp=/kept/,backup=1,size=1G"),
            ("mp2", "/srv,mp=/srv"),
            ("mp3", "/dev/sdb1,mp=/device"),
            // Marked since the backup was made.
            ("mp4", "local:104/vm-104-disk-3.raw,backup=1,mp=/later,size=1G"),
            ("unused0", "local:104/vm-104-disk-4.raw"),
            ("mptcp", "local:1"),
        ]);
        let held = ArchivedConfig { held: ["/kept".to_owned()].into(), ..Default::default() };
        let belongings = Belongings { volumes: of(&config), snapshots: vec!["before".to_owned()] };
        assert_eq!(
            belongings.not_held(&held).unwrap(),
            "mp0 (local:104/vm-104-disk-1.raw at /data), \
             mp4 (local:104/vm-104-disk-3.raw at /later), unused0 (local:104/vm-104-disk-4.raw), \
             snapshot before"
        );
        assert_eq!(of(&config).len(), 4);
        assert!(
            Belongings::default().is_empty() && Belongings::default().not_held(&held).is_none()
        );
    }

    /// Its mount point is left out of the one answer, and its path was in the backup: it will be mounted
    /// nowhere, and somebody wants to keep it.
    #[test]
    fn a_volume_whose_mount_point_is_being_taken_away_is_not_held() {
        let later = config(&[("mp1", "local:104/vm-104-disk-2.raw,mp=/kept")]);
        let now = config(&[
            ("mp0", "local:104/vm-104-disk-1.raw,mp=/held,backup=1"),
            ("mp1", "local:104/vm-104-disk-2.raw,mp=/kept"),
        ]);
        let held = ArchivedConfig {
            held: ["/held".to_owned(), "/kept".to_owned()].into(),
            ..Default::default()
        };
        let volumes = with_current(&later, Some(&now));
        let belongings = Belongings { volumes, snapshots: Vec::new() };
        assert_eq!(belongings.not_held(&held).unwrap(), "mp0 (local:104/vm-104-disk-1.raw)");
    }

    #[test]
    fn a_snapshot_that_a_copy_or_a_backup_left_is_nobodys() {
        for (name, passes) in [
            ("px0198f2a17c4b7d3e8a90b1c2d3e4f506", true),
            ("vzdump", true),
            ("px0198f2a17c4b7d3e8a90b1c2d3e4f50", false),
            ("px0198f2a17c4b7d3e8a90b1c2d3e4fxyz", false),
            ("before", false),
        ] {
            assert_eq!(is_passing(name), passes, "{name}");
        }
    }
}
