//! Opens a database file for reading only: beside its writer, alone, or where nothing can be written.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::Error;

/// How long a read waits for somebody else's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Faults of a file that are told at most.
const FAULTS: u32 = 10;

/// Where a database file counts the changes that were made to it.
const CHANGE_COUNTER: u64 = 24;

/// An opened file.
pub(super) struct Reading {
    pub connection: Connection,
    /// Set when it is read as a file that nobody changes.
    pub still: Option<Still>,
}

/// A file that is read as one that nobody changes, and what it was before the first look at it.
#[derive(Debug)]
pub struct Still {
    path: PathBuf,
    /// Kept open: to close it would take the locks away that this process may have on it.
    file: File,
    seen: Seen,
}

/// What differs once a server has written: which file it is, its length, time and count of changes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changes: [u8; 4],
}

impl Still {
    fn of(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let seen = Seen::of(path, &file).map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file, seen })
    }

    /// Passes on what a read came to, unless somebody has written since: then it says nothing.
    pub(super) fn judged<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        self.unchanged().and(result)
    }

    /// Refuses what was read when somebody has written since.
    pub fn unchanged(&self) -> Result<(), Error> {
        let is_same = Seen::of(&self.path, &self.file).is_ok_and(|seen| seen == self.seen);
        match has_unmerged(&self.path) {
            Ok(false) if is_same => Ok(()),
            _ => Err(Error::ChangedMeanwhile { path: self.path.clone() }),
        }
    }
}

impl Seen {
    fn of(path: &Path, file: &File) -> Result<Self, std::io::Error> {
        let found = std::fs::metadata(path)?;
        let mut changes = [0; 4];
        match file.read_exact_at(&mut changes, CHANGE_COUNTER) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        Ok(Self {
            file: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changes,
        })
    }
}

/// Opens a database file of ours for reading, whether or not its directory can be written. Where a [`Still`]
/// comes with it, that is to be asked after each read.
pub fn open_for_reading(path: &Path) -> Result<(Connection, Option<Still>), Error> {
    let Reading { connection, still } = open(path)?;
    Ok((connection, still))
}

/// What SQLite finds wrong with a database file of ours, also with its indexes, when it reads all of it.
pub fn faults(path: &Path) -> Result<Vec<String>, Error> {
    let Reading { connection, still } = open(path)?;
    let found = check_integrity(&connection).map_err(Error::from);
    match still {
        Some(still) => still.judged(found),
        None => found,
    }
}

fn check_integrity(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(&format!("pragma integrity_check({FAULTS})"))?;
    let lines = statement.query_map((), |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// SQLite keeps an index of the write-ahead log beside the file, for which it has to write there. Where it
/// cannot, and everything is in the file itself, the file alone is read: nobody who could change it runs.
/// That somebody has begun to since is asked after each read, by [`Still::judged`].
pub(super) fn open(path: &Path) -> Result<Reading, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let refused = match opened(path, flags) {
        Ok(connection) => return Ok(Reading { connection, still: None }),
        Err(error) => error,
    };
    let code = refused.sqlite_error_code();
    if !matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) || !path.is_file() {
        return Err(refused.into());
    }
    let still = Still::of(path)?;
    match has_unmerged(path) {
        Ok(false) => {}
        Ok(true) => return Err(Error::UnmergedLog { wal: write_ahead_log(path) }),
        Err(_) => return Err(refused.into()),
    }
    let uri = immutable(&std::path::absolute(path).map_err(Error::io(path))?);
    let connection = opened(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI);
    let connection = still.judged(connection.map_err(Error::from))?;
    Ok(Reading { connection, still: Some(still) })
}

fn opened(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Only the first read shows whether the write-ahead log can be used.
    connection.query_row("select count(*) from sqlite_schema", (), |_| Ok(()))?;
    Ok(connection)
}

fn write_ahead_log(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// Whether anything is in the write-ahead log, which may not be in the file yet.
fn has_unmerged(path: &Path) -> Result<bool, std::io::Error> {
    match std::fs::metadata(write_ahead_log(path)) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name of an absolute path with which SQLite takes no locks and looks for no write-ahead log.
fn immutable(path: &Path) -> String {
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            plain if plain.is_ascii_alphanumeric() => uri.push(char::from(*plain)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_file_that_nobody_changes_is_opened_whatever_its_path_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("50 %25 off?immutable=0#ä.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(
                "pragma journal_mode = wal; create table t (n); insert into t values (7)",
            )
            .unwrap();
        drop(writer);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let reader = opened(Path::new(&immutable(&path)), flags).unwrap();
        assert_eq!(reader.query_row("select n from t", (), |row| row.get::<_, i64>(0)).unwrap(), 7);
        assert!(!write_ahead_log(&path).exists(), "an immutable file has no write-ahead log");
    }

    #[test]
    fn a_missing_file_is_not_taken_for_one_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        assert!(matches!(open_for_reading(&path), Err(Error::Sqlite(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_row_that_an_index_lacks_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let make = "create table t (n); create index t_n on t (n) where n <> 2;
                    insert into t values (1), (2), (3);
                    pragma writable_schema = on;
                    update sqlite_schema set sql = 'create index t_n on t (n)' where name = 't_n'";
        Connection::open(&path).unwrap().execute_batch(make).unwrap();
        let faults = faults(&path).unwrap();
        assert!(faults.iter().any(|fault| fault.contains("missing from index t_n")), "{faults:?}");
        let whole = folder.path().join("views.db");
        Connection::open(&whole).unwrap().execute_batch("create table t (n)").unwrap();
        assert_eq!(super::faults(&whole).unwrap(), Vec::<String>::new());
    }
}
