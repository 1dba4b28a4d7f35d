//! Whether there is room for the disks that a restore makes, as far as that can be told beforehand.

use crate::applications::bytes;
use crate::ports::{ArchivedConfig, Storage};

const MEBIBYTE: u64 = 1 << 20;
const GIBIBYTE: u64 = 1 << 30;

/// What is missing, in a sentence; `None` when it may fit or nothing is known. Most storages take from
/// their room what is written and not what a disk may hold, so there only the archive's own size counts,
/// which is the least that is written. LVM without a thin pool takes all of a disk at once.
pub(crate) fn missing(
    storage: &Storage,
    archived: &ArchivedConfig,
    archive: Option<u64>,
) -> Option<String> {
    let available = storage.available?;
    let in_full = storage.kind == "lvm";
    let needed = if in_full { sizes(archived) } else { archive? };
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

    fn archived() -> ArchivedConfig {
        let sizes = [("rootfs", "8G"), ("mp0", "512M"), ("mp1", "100G"), ("mp2", "")];
        let sizes = sizes.map(|(key, size)| (key.to_owned(), size.to_owned())).into();
        ArchivedConfig { sizes, ..Default::default() }
    }

    #[test]
    fn a_storage_that_allocates_in_full_has_to_have_room_for_all_disks() {
        let needed = 108 * GIBIBYTE + GIBIBYTE / 2;
        assert_eq!(missing(&storage("lvm", Some(needed)), &archived(), Some(1)), None);
        let text = missing(&storage("lvm", Some(needed - 1)), &archived(), Some(1)).unwrap();
        assert!(text.contains("storage data (lvm) has 108 GiB free"), "{text}");
        assert!(text.contains("the disks of the backup in full"), "{text}");
    }

    #[test]
    fn a_thin_one_has_to_have_room_for_what_the_archive_has() {
        for kind in ["dir", "lvmthin", "zfspool", "btrfs", "rbd", "nfs", "cifs"] {
            let one = |available| missing(&storage(kind, available), &archived(), Some(GIBIBYTE));
            assert_eq!(one(Some(GIBIBYTE)), None);
            assert_eq!(one(None), None, "not known");
            assert!(one(Some(GIBIBYTE - 1)).unwrap().contains("the archive alone"));
        }
        assert_eq!(missing(&storage("dir", Some(0)), &archived(), None), None);
    }
}
