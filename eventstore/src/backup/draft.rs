//! What a backup is written to before it is whole: `FILE.<32 digits>.part`, locked while somebody writes it.
//!
//! One that nobody has locked was left by a process that was killed, and is removed by the next backup to the
//! same file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::Error;

const ENDING: &str = ".part";

/// Begins one for `path`, for its owner only: of this process alone, so that two that make the same file do
/// not write into one another's.
pub(super) fn create(path: &Path) -> Result<(PathBuf, File), Error> {
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}{ENDING}", uuid::Uuid::new_v4().simple()));
        let draft = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&draft).map_err(Error::io(&draft))?;
        // A file system without locks has nothing removed, either.
        let is_locked = file.lock().is_ok();
        // Whoever cleans up may have come between the two.
        if !is_locked || is_at(&file, &draft) {
            return Ok((draft, file));
        }
    }
}

/// Removes what backups to `path` that were killed have left there; returns the files. What cannot be removed
/// stays.
pub(super) fn remove_left(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let (Some(name), Ok(entries)) =
        (path.file_name(), std::fs::read_dir(folder.unwrap_or_else(|| Path::new("."))))
    else {
        return Vec::new();
    };
    let is_ours = |found: &Path| {
        let digits = found
            .file_name()
            .and_then(|found| found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes()))
            .and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(ENDING.as_bytes()));
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        digits.is_some_and(|digits| digits.len() == 32 && digits.iter().all(is_digit))
    };
    let found = entries.flatten().map(|entry| entry.path());
    found.filter(|found| is_ours(found) && remove(found)).collect()
}

/// Removes a regular file that nobody has locked.
fn remove(draft: &Path) -> bool {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::open(draft, how, Mode::empty()) else { return false };
    let file = File::from(opened);
    file.metadata().is_ok_and(|found| found.is_file())
        && file.try_lock().is_ok()
        && is_at(&file, draft)
        && std::fs::remove_file(draft).is_ok()
}

/// Whether this open file is the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn what_a_killed_backup_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.backup");
        let at = |name: &str| folder.path().join(name);
        let digits = "0123456789abcdef0123456789abcdef";
        let left = at(&format!("a.backup.{digits}.part"));
        std::fs::write(&left, "half").unwrap();
        let (running, file) = create(&path).unwrap();
        let kept = [
            format!("b.backup.{digits}.part"),
            format!("a.backup.{digits}.part.old"),
            format!("a.backup.{}.part", &digits[1..]),
            format!("a.backup.{}.part", digits.to_uppercase()),
            "a.backup.part".to_owned(),
            "a.backup".to_owned(),
        ]
        .map(|name| at(&name));
        for other in &kept {
            std::fs::write(other, "another's").unwrap();
        }
        // Neither a link nor a folder of such a name is one of ours.
        let link = at(&format!("a.backup.{}.part", digits.replace('0', "1")));
        std::os::unix::fs::symlink(&kept[0], &link).unwrap();
        let named = at(&format!("a.backup.{}.part", digits.replace('0', "2")));
        std::fs::create_dir(&named).unwrap();
        assert_eq!(remove_left(&path), [left]);
        assert!(kept.iter().chain([&running, &link, &named]).all(|path| path.exists()));
        drop(file);
        assert_eq!(remove_left(&path), [running]);
    }
}
