//! Whether there is room for the disks that a restore makes, as far as that can be told beforehand.

use crate::applications::bytes;
use crate::ports::{ArchivedConfig, Storage, Volume};

const MEBIBYTE: u64 = 1 << 20;
const GIBIBYTE: u64 = 1 << 30;
/// Kinds of storages that write at least what an archive has. Others may compress better than the archive
/// is compressed, so that its size says nothing about them.
const PLAIN: [&str; 4] = ["dir", "nfs", "cifs", "lvmthin"];

/// What is missing, in a sentence; `None` when it may fit or nothing is known. LVM without a thin pool
/// takes all of a disk at once. Other storages take what is written and not what a disk may hold: of those
/// that do not compress that is the archive's own size at least.
pub(crate) fn missing(
    storage: &Storage,
    archived: &ArchivedConfig,
    archive: &Volume,
) -> Option<String> {
    let available = storage.available?;
    let in_full = storage.kind == "lvm";
    let needed = if in_full { sizes(archived) } else { least(storage, archive)? };
    let compared = if in_full {
        format!("it allocates the disks of the backup in full, which are {}", shown(needed))
    } else {
        format!("the archive alone has {}, less than which no restore writes", shown(needed))
    };
    (available < needed).then(|| {
        format!(
            "storage {} ({}) has {} free beside the disks that are there, and {compared}",
            storage.name,
            storage.kind,
            shown(available),
        )
    })
}

/// Bytes that a restore writes in any case. A Proxmox Backup Server tells the size of what was stored and
/// not of what it took, with all that it holds once for several backups.
fn least(storage: &Storage, archive: &Volume) -> Option<u64> {
    let is_plain = PLAIN.contains(&storage.kind.as_str());
    archive.size.filter(|_| is_plain && !is_on_backup_server(&archive.id))
}

/// `pbs:backup/ct/101/2026-11-29T10:00:00Z`, and not `local:backup/vzdump-lxc-101-….tar.zst`.
fn is_on_backup_server(volume: &str) -> bool {
    volume.split_once(':').is_some_and(|(_, name)| name.starts_with("backup/ct/"))
}

/// Bytes of all disks that a restore makes: the root disk, and every volume that was mounted. What the
/// archive does not hold is made all the same, and stays empty.
fn sizes(archived: &ArchivedConfig) -> u64 {
    archived.sizes.values().filter_map(|size| bytes(size)).fold(0, u64::saturating_add)
}

fn shown(bytes: u64) -> String {
    if bytes < 10 * GIBIBYTE {
        format!("{} MiB", bytes / MEBIBYTE)
    } else {
        format!("{} GiB", bytes / GIBIBYTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(kind: &str, available: Option<u64>) -> Storage {
        Storage {
            name: "data".to_owned(),
            kind: kind.to_owned(),
            content: vec!["rootdir".to_owned()],
            active: true,
            shared: false,
            available,
            total: None,
            used: None,
        }
    }

    fn archive(id: &str, size: Option<u64>) -> Volume {
        let id = id.to_owned();
        Volume { id, size, created: None, vmid: None, notes: None, protected: false }
    }

    fn file(size: Option<u64>) -> Volume {
        archive("local:backup/vzdump-lxc-101-2026_11_29-10_00_00.tar.lzo", size)
    }

    fn archived() -> ArchivedConfig {
        let sizes = [("rootfs", "8G"), ("mp0", "512M"), ("mp1", "100G"), ("mp2", "")];
        let sizes = sizes.map(|(key, size)| (key.to_owned(), size.to_owned())).into();
        ArchivedConfig { sizes, ..Default::default() }
    }

    #[test]
    fn a_storage_that_allocates_in_full_has_to_have_room_for_all_disks() {
        let needed = 108 * GIBIBYTE + GIBIBYTE / 2;
        assert_eq!(missing(&storage("lvm", Some(needed)), &archived(), &file(Some(1))), None);
        let text = missing(&storage("lvm", Some(needed - 1)), &archived(), &file(Some(1))).unwrap();
        assert!(text.contains("storage data (lvm) has 108 GiB free"), "{text}");
        assert!(text.contains("the disks of the backup in full"), "{text}");
    }

    #[test]
    fn a_thin_one_has_to_have_room_for_what_the_archive_has() {
        let archive = file(Some(GIBIBYTE));
        for kind in ["dir", "lvmthin", "nfs", "cifs"] {
            let one = |available| missing(&storage(kind, available), &archived(), &archive);
            assert_eq!(one(Some(GIBIBYTE)), None);
            assert_eq!(one(None), None, "not known");
            assert!(one(Some(GIBIBYTE - 1)).unwrap().contains("the archive alone"));
        }
        assert_eq!(missing(&storage("dir", Some(0)), &archived(), &file(None)), None);
    }

    #[test]
    fn one_that_may_compress_better_than_the_archive_is_asked_for_no_room() {
        for kind in ["zfspool", "zfs", "btrfs", "rbd", "cephfs", "of-somebody-else"] {
            let full = storage(kind, Some(0));
            assert_eq!(missing(&full, &archived(), &file(Some(GIBIBYTE))), None, "{kind}");
        }
    }

    #[test]
    fn the_size_that_a_backup_server_tells_is_none_of_an_archive() {
        let one = archive("pbs:backup/ct/101/2026-11-29T10:00:00Z", Some(GIBIBYTE));
        assert_eq!(missing(&storage("dir", Some(0)), &archived(), &one), None);
        let in_full = missing(&storage("lvm", Some(GIBIBYTE)), &archived(), &one);
        assert!(in_full.unwrap().contains("108 GiB"));
    }
}
