//! Damage to `views.db`: told once, noted in a file beside it, and mended by the next start of a server,
//! which builds the read models anew from the log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::Location;
use crate::error::Error;

/// The file's name.
pub(super) const NAME: &str = "views.db";

/// Path of the file in this directory, for tools that inspect it.
pub fn sqlite_file(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Whether the file is no database, or one that contradicts itself.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut file = path.to_owned().into_os_string();
    file.push(end);
    file.into()
}

/// Remembers that a page of it could not be used; SQLite finds that only when it reads the page.
pub(super) fn note(path: &Path, error: &rusqlite::Error) {
    let mark = beside(path, ".damaged");
    match std::fs::File::create_new(&mark) {
        Ok(_) => tracing::error!(%error, path = %path.display(),
            "views.db is damaged: restart the server, which then builds the read models anew"),
        Err(known) if known.kind() == ErrorKind::AlreadyExists => {}
        Err(second) => tracing::error!(%error, %second, path = %path.display(),
            "views.db is damaged, which could not be noted: stop the server and delete it"),
    }
}

/// Whether damage was noted and not mended.
pub(super) fn is_noted(path: &Path) -> bool {
    beside(path, ".damaged").exists()
}

/// Removes the file with all that belongs to it; the log has everything.
pub(crate) fn discard(dir: &Path, why: &dyn std::fmt::Display) -> Result<(), Error> {
    let path = dir.join(NAME);
    tracing::warn!(%why, path = %path.display(), "views.db is damaged; starting it anew");
    // The mark last: a process that is killed in between leaves it to the next one.
    for end in ["", "-wal", "-shm", ".damaged"] {
        match std::fs::remove_file(beside(&path, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a `views.db` in which damage was found; only for a process that nobody else shares it with.
pub fn discard_damaged(location: &Location) -> Result<(), Error> {
    let Location::Sqlite { dir } = location else { return Ok(()) };
    if is_noted(&dir.join(NAME)) {
        discard(dir, &"a page of it could not be used")?;
    }
    Ok(())
}
