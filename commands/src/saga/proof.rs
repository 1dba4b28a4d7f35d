//! Whether a task of an operation has made a volume, by what Proxmox tells of both: where its log names
//! what it makes, that decides, and the times have to fit in any case.

use std::collections::BTreeSet;

use proximity_domain::{NodeName, Vmid};

use super::traces::node_of;
use crate::ports::Volume;

/// Seconds by which the clock that a volume's time comes from may differ from the node's: a file server
/// has its own, and what was written to a disk reaches it a little later.
pub(super) const SLACK: i64 = 10;

/// A task that has made a container, or was to.
#[derive(Debug)]
pub(super) struct Making<'a> {
    pub(super) node: NodeName,
    pub(super) begun: Begun<'a>,
    /// Seconds since 1970; `None` where nobody knows it any more.
    ended: Option<i64>,
    /// File names of what its log says that it made; which storages say so depends on their kind.
    names: BTreeSet<String>,
}

impl<'a> Making<'a> {
    pub(super) fn of(upid: &'a str, ended: Option<i64>, log: &[String]) -> Option<Self> {
        let names = log.iter().filter_map(|line| made_by(line)).collect();
        Some(Self { node: node_of(upid)?, begun: Begun::of(upid)?, ended, names })
    }

    /// What its log says that it made.
    pub(super) fn into_names(self) -> BTreeSet<String> {
        self.names
    }

    /// Whether it made the volume, which is listed on this node.
    pub(super) fn has_made(&self, node: &NodeName, volume: &Volume) -> bool {
        let is_in_time = volume.created.map(|at| {
            let is_late = self.ended.is_some_and(|ended| at > ended.saturating_add(SLACK));
            at >= self.begun.second().saturating_sub(SLACK) && !is_late
        });
        let is_shown = if self.names.is_empty() {
            is_in_time == Some(true) && self.ended.is_some()
        } else {
            // One of this name that was put there since is somebody else's.
            self.names.contains(file_name(&volume.id)) && is_in_time != Some(false)
        };
        self.node == *node && is_shown
    }
}

/// What a volume is called without its storage and folder.
pub(crate) fn file_name(volume: &str) -> &str {
    volume.rsplit([':', '/']).next().unwrap_or_default()
}

/// The file or logical volume that a line of a task's log says was made.
fn made_by(line: &str) -> Option<String> {
    let named = match line.trim_start().strip_prefix("Formatting '") {
        Some(rest) => rest.split('\'').next(),
        None => line.trim_start().strip_prefix("Logical volume \"")?.strip_suffix("\" created."),
    };
    named.map(|path| file_name(path).to_owned())
}

/// A disk with the name that Proxmox gives by itself.
pub(crate) fn is_disk_of(volume: &Volume, vmid: Vmid) -> bool {
    let name = file_name(&volume.id);
    volume.vmid == Some(vmid)
        && ["vm", "subvol"].iter().any(|kind| name.starts_with(&format!("{kind}-{vmid}-disk-")))
}

/// When a task began, as its id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun<'a> {
    node: &'a str,
    /// Seconds since 1970 by the node's clock, then its ticks since it was started.
    at: (i64, i64),
}

impl<'a> Begun<'a> {
    pub(super) fn of(upid: &'a str) -> Option<Self> {
        let mut parts = upid.split(':').skip(1);
        let node = parts.next()?;
        let mut number = || i64::from_str_radix(parts.next()?, 16).ok();
        let (_pid, ticks, second) = (number()?, number()?, number()?);
        Some(Self { node, at: (second, ticks) })
    }

    pub(super) fn second(&self) -> i64 {
        self.at.0
    }

    /// Within one second only a node's own ticks tell.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        if self.node == other.node { self.at < other.at } else { self.at.0 < other.at.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPID: &str = "UPID:pve1:00000271:0005EA12:6B049FDA:vzcreate:104:root@pam:";
    const BEGAN: i64 = 0x6B04_9FDA;

    fn volume(id: &str, owner: i64, created: Option<i64>) -> Volume {
        let vmid = owner.try_into().ok();
        Volume { id: id.to_owned(), size: None, created, vmid, notes: None, protected: false }
    }

    fn lines(log: &[&str]) -> Vec<String> {
        log.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn only_disks_that_proxmox_named_itself_are_of_the_number() {
        let vmid = Vmid::try_from(104).unwrap();
        for (id, owner, is_ours) in [
            ("local:104/vm-104-disk-0.raw", 104, true),
            ("zfs:subvol-104-disk-1", 104, true),
            ("lvm:vm-104-disk-0", 104, true),
            ("lvm:vm-104-disk-0", 105, false),
            ("lvm:vm-104-cloudinit", 104, false),
            ("lvm:vm-104-data", 104, false),
            ("zfs:basevol-104-disk-0", 104, false),
        ] {
            assert_eq!(is_disk_of(&volume(id, owner, None), vmid), is_ours, "{id} of {owner}");
        }
    }

    /// The lines are Proxmox's own; a Btrfs or ZFS storage has none.
    #[test]
    fn where_the_log_names_what_was_made_nothing_else_was() {
        let log = lines(&[
            "Formatting '/var/lib/vz/images/104/vm-104-disk-0.raw', fmt=raw size=1 preallocation=off",
            "  Logical volume \"vm-104-disk-1\" created.",
            "Creating filesystem with 262144 4k blocks and 65536 inodes",
        ]);
        let node: NodeName = "pve1".parse().unwrap();
        let made = Making::of(UPID, Some(BEGAN + 5), &log).unwrap();
        for (id, created, is_made) in [
            ("local:104/vm-104-disk-0.raw", Some(BEGAN + 4), true),
            ("local:104/vm-104-disk-0.raw", None, true),
            ("lvm:vm-104-disk-1", Some(BEGAN), true),
            // Freed and put there again by hand.
            ("local:104/vm-104-disk-0.raw", Some(BEGAN + 600), false),
            ("local:104/vm-104-disk-7.raw", Some(BEGAN + 4), false),
            ("local:104/vm-104-disk-00.raw", Some(BEGAN + 4), false),
        ] {
            assert_eq!(
                made.has_made(&node, &volume(id, 104, created)),
                is_made,
                "{id} {created:?}"
            );
        }
        let elsewhere = "pve2".parse().unwrap();
        assert!(!made.has_made(&elsewhere, &volume("lvm:vm-104-disk-1", 104, Some(BEGAN))));
    }

    #[test]
    fn where_the_log_names_nothing_the_times_decide() {
        let log = lines(&["Filesystem UUID: f1f14226", "unable to parse 'vm-104-disk-0'"]);
        let node: NodeName = "pve1".parse().unwrap();
        let disk = |created| volume("btrfs:104/vm-104-disk-0.raw", 104, created);
        let made = Making::of(UPID, Some(BEGAN + 5), &log).unwrap();
        for (created, is_made) in [
            (Some(BEGAN + 5), true),
            (Some(BEGAN - SLACK), true),
            (Some(BEGAN - SLACK - 1), false),
            (Some(BEGAN + 5 + SLACK), true),
            (Some(BEGAN + 6 + SLACK), false),
            (None, false),
        ] {
            assert_eq!(made.has_made(&node, &disk(created)), is_made, "{created:?}");
        }
        let endless = Making::of(UPID, None, &log).unwrap();
        assert!(!endless.has_made(&node, &disk(Some(BEGAN + 5))), "nobody knows when it ended");
    }

    #[test]
    fn a_task_id_says_since_when() {
        let begun = Begun::of(UPID).unwrap();
        assert_eq!(begun, Begun { node: "pve1", at: (BEGAN, 0x0005_EA12) });
        let later = UPID.replace("0005EA12", "0005EA13");
        assert!(begun.is_before(&Begun::of(&later).unwrap()));
        let elsewhere = later.replace("pve1", "pve2");
        assert!(!begun.is_before(&Begun::of(&elsewhere).unwrap()), "nodes count for themselves");
        assert_eq!(Begun::of("UPID:pve1"), None);
    }
}
