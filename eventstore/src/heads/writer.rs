//! Adds one server's heads to its files: in the directory that they were in before, or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use std::io::Write as _;

use rustix::fs::OFlags;
use uuid::Uuid;

use super::read::{HEADS, Stretch, open_regular};
use super::{Head, HeadsDir, sync};
use crate::error::Error;
use crate::signed::{Signed, Trusted};

/// After this long a server goes on in a new file.
const FILE_SPAN: i64 = 24 * 3_600 * 1_000_000;

/// Where one server adds its heads.
#[derive(Debug, Clone)]
pub(crate) struct HeadWriter {
    dir: HeadsDir,
    /// Where whoever does not know the directory publishes under this server's name.
    elsewhere: Option<HeadsDir>,
    server: String,
    file: Option<InUse>,
    expected: Expected,
}

/// What has to be in the directory before this server adds to it: where that is gone, another directory is
/// in its place, or an older copy, and nothing is made anew there.
#[derive(Debug, Clone, Default)]
enum Expected {
    /// It has published nothing yet.
    #[default]
    Nothing,
    /// What was read or written there last.
    File(Stretch),
    /// The newest head that it published, which was not there when somebody looked for it.
    Newest,
}

/// The file in use.
#[derive(Debug, Clone)]
struct InUse {
    path: PathBuf,
    /// Microseconds since 1970.
    begun: i64,
    /// In bytes, as this process left it.
    length: u64,
    /// Whether its name is on the disk, too.
    is_synced: bool,
}

impl HeadWriter {
    pub fn new(dir: HeadsDir, server: String, elsewhere: Option<HeadsDir>) -> Self {
        let elsewhere = elsewhere.filter(|other| other.path() != dir.path());
        Self { dir, elsewhere, server, file: None, expected: Expected::Nothing }
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn dir(&self) -> &HeadsDir {
        &self.dir
    }

    /// Says that this server has published before, and that the newest heads there are in this file.
    pub fn expect(&mut self, newest: Stretch) {
        (self.file, self.expected) = (None, Expected::File(newest));
    }

    /// Says that the newest head that this server has published is gone: nothing is added until
    /// [`Self::expect`] or [`Self::forget`] says that somebody has found it, or others that tell as much.
    pub fn miss(&mut self) {
        (self.file, self.expected) = (None, Expected::Newest);
    }

    /// Begins anew, where something else vouches for what this server has published.
    pub fn forget(&mut self) {
        (self.file, self.expected) = (None, Expected::Nothing);
    }

    /// This server's own files of a life.
    pub fn own(&self, incarnation: Uuid) -> Result<Vec<Stretch>, Error> {
        self.dir.files_of(incarnation, &self.server)
    }

    /// Whether the directory has any file of this server.
    pub fn is_known(&self, incarnation: Uuid) -> Result<bool, Error> {
        self.dir.has_files(incarnation, &self.server)
    }

    /// The newest head of a life that was published elsewhere under this server's name.
    pub fn elsewhere(&self, incarnation: Uuid, trusted: &Trusted) -> Result<Option<Head>, Error> {
        let Some(other) = &self.elsewhere else { return Ok(None) };
        // A statement that a life began with has to be copied along with the heads.
        let is_all = self.is_known(incarnation)? || other.lives()?.found.is_empty();
        if !is_all || !other.has_files(incarnation, &self.server)? {
            return Ok(None);
        }
        Ok(other.survey(incarnation, trusted)?.newest.map(|head| head.statement))
    }

    /// Refuses a directory that lacks what this server has published there: that is an empty mount point,
    /// or an older copy under it, most likely, and what is written there is missed once the mount is back.
    pub fn check(&self, incarnation: Uuid) -> Result<(), Error> {
        let path = match &self.expected {
            Expected::Nothing => return Ok(()),
            Expected::File(newest) if newest.is_here() => return Ok(()),
            Expected::File(newest) => newest.path.clone(),
            Expected::Newest => self.folder(incarnation),
        };
        let has_them =
            |other: &&HeadsDir| other.has_files(incarnation, &self.server).unwrap_or(false);
        let elsewhere = self.elsewhere.as_ref().filter(has_them);
        let elsewhere = elsewhere.map(|other| other.path().to_owned());
        Err(Error::HeadsGone { path, elsewhere })
    }

    /// Adds a line for each head, on the disk when it returns.
    ///
    /// A line that is cut short by a crash or a full disk is the last one of its file: the next head
    /// goes to a new one, as it does where anything else stands behind what this process has added. A file to
    /// which nothing could be added stays in use.
    pub fn add(&mut self, heads: &[Signed<Head>]) -> Result<(), Error> {
        let Some(first) = heads.first() else { return Ok(()) };
        let mut text = Vec::new();
        for head in heads {
            serde_json::to_writer(&mut text, head)
                .map_err(|error| Error::malformed(error.to_string()))?;
            text.push(b'\n');
        }
        let Head { incarnation, sealed_at, .. } = first.statement;
        self.check(incarnation)?;
        let folder = self.folder(incarnation);
        let usable = self.file.take().filter(|file| {
            sealed_at - file.begun < FILE_SPAN
                && file.path.starts_with(&folder)
                && exists(&file.path)
                && Stretch::of(&file.path).length == file.length
        });
        let mut file = match usable {
            Some(file) => file,
            None => self.begin(&folder, sealed_at)?,
        };
        let length = match append(&file.path, &text) {
            Ok(length) => length,
            Err(failed) => {
                self.file = (!failed.is_longer).then_some(file.clone());
                return Err(Error::io(file.path)(failed.why));
            }
        };
        if !file.is_synced {
            sync(&folder)?;
            sync(self.dir.path())?;
            file.is_synced = true;
        }
        file.length = length;
        self.expected = Expected::File(Stretch { path: file.path.clone(), length });
        self.file = Some(file);
        Ok(())
    }

    fn folder(&self, incarnation: Uuid) -> PathBuf {
        self.dir.path().join(incarnation.to_string())
    }

    /// Makes a new file.
    fn begin(&self, folder: &Path, sealed_at: i64) -> Result<InUse, Error> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut path = folder.join(format!("{sealed_at:020}-{}.{HEADS}", self.server));
        if exists(&path) {
            // It was begun for this very head, and not finished.
            let another = Uuid::new_v4().simple();
            path = folder.join(format!("{sealed_at:020}-{another}-{}.{HEADS}", self.server));
        }
        File::options().write(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        Ok(InUse { path, begun: sealed_at, length: 0, is_synced: false })
    }
}

/// Why nothing, or not all, was added to a file.
struct Failed {
    why: std::io::Error,
    /// Whether a part of it was, or may have been.
    is_longer: bool,
}

/// Adds to a file, and tells how long it is then at least.
fn append(path: &Path, text: &[u8]) -> Result<u64, Failed> {
    let untouched = |why| Failed { why, is_longer: false };
    let mut file = open_regular(path, OFlags::WRONLY | OFlags::APPEND).map_err(untouched)?;
    let before = file.metadata().map_err(untouched)?.len();
    let written = file.write_all(text).and_then(|()| file.sync_data());
    written.map(|()| before + text.len() as u64).map_err(|why| {
        let is_longer = file.metadata().map_or(true, |now| now.len() != before);
        Failed { why, is_longer }
    })
}

/// Whether anything has this name, whatever it is.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
