//! The second place: signed heads of the chain, the lives of the log, and the keys, as files.
//!
//! `<life>/<time>-<server>.heads` has one head on each line, only ever added to. `lives/` says how a
//! restored log came to be, `keys/` which keys signed. No file is ever written over: the directory may
//! be append-only, a mount of another host, or be copied elsewhere.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::Position;
use crate::error::Error;
use crate::seal::Seal;
use crate::signed::{Signed, Statement, Vouched};
use crate::{hex, signed};

/// After this long a server goes on in a new file.
const FILE_SPAN: i64 = 24 * 3_600 * 1_000_000;
/// More than any line has.
const LINE: u64 = 4_096;

/// The head of the chain as published: enough to notice that the log was cut or written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub incarnation: Uuid,
    pub block: u64,
    pub position: Position,
    /// Of the block, in hexadecimal digits.
    pub hash: String,
    /// Microseconds since 1970.
    pub sealed_at: i64,
}

impl Statement for Head {
    const KIND: &'static str = "head";
}

impl Head {
    pub(crate) fn of(seal: &Seal) -> Self {
        Self {
            incarnation: seal.incarnation,
            block: seal.block,
            position: seal.last,
            hash: hex(&seal.hash),
            sealed_at: seal.sealed_at,
        }
    }
}

/// That a life of the log began with a restored backup, and what it left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub incarnation: Uuid,
    /// The life that the backup was taken in.
    pub from: Uuid,
    /// The last event of the backup.
    pub position: Position,
    /// The last block of the backup, 0 when it has none; its hash in hexadecimal digits.
    pub block: u64,
    pub hash: String,
    /// What the lives that were known then had reached, the one that was given up among them.
    pub left: Vec<Left>,
    /// Microseconds since 1970.
    pub began_at: i64,
    /// What whoever restored it said.
    pub note: String,
}

/// How far a life had come, by its heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub incarnation: Uuid,
    pub position: Position,
}

impl Statement for Life {
    const KIND: &'static str = "life";
}

/// A directory of heads; all of its methods block.
#[derive(Debug, Clone)]
pub struct HeadsDir {
    dir: PathBuf,
}

impl HeadsDir {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The lives of which there are heads.
    pub fn incarnations(&self) -> Result<Vec<Uuid>, Error> {
        let names = list(&self.dir)?;
        let lives = names.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        Ok(lives.collect())
    }

    /// The files with the heads of a life, oldest first.
    pub(crate) fn files(&self, incarnation: Uuid) -> Result<Vec<PathBuf>, Error> {
        let mut files = list(&self.dir.join(incarnation.to_string()))?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "heads"));
        Ok(files)
    }

    /// The newest head of a life, as far as its files can be read.
    pub fn latest(&self, incarnation: Uuid) -> Result<Option<Signed<Head>>, Error> {
        let mut latest: Option<Signed<Head>> = None;
        for path in self.files(incarnation)? {
            let Some(head) = last_line(&path)? else { continue };
            if latest.as_ref().is_none_or(|known| known.statement.block < head.statement.block) {
                latest = Some(head);
            }
        }
        Ok(latest)
    }

    /// How restored lives began.
    pub fn lives(&self) -> Result<Vec<Signed<Life>>, Error> {
        read_all(&self.dir.join("lives"))
    }

    /// The keys that have signed, each said by another one or by itself.
    pub fn vouched(&self) -> Result<Vec<Signed<Vouched>>, Error> {
        read_all(&self.dir.join("keys"))
    }

    /// Keeps how a life began.
    pub fn add_life(&self, life: &Signed<Life>) -> Result<(), Error> {
        let name = format!("{}.json", life.statement.incarnation);
        add_file(&self.dir.join("lives"), &name, life)
    }

    /// Says that `key` speaks for `others`, which signed before, and for itself.
    pub fn vouch(
        &self,
        key: &ed25519_dalek::SigningKey,
        others: &[ed25519_dalek::VerifyingKey],
    ) -> Result<(), Error> {
        let own = key.verifying_key();
        for other in others.iter().chain([&own]) {
            let public_key = signed::public_key_text(other);
            let vouched = Signed::new(Vouched { public_key }, key)?;
            let name = format!("{}-by-{}.json", signed::key_id(other), vouched.key_id);
            if !self.dir.join("keys").join(&name).exists() {
                add_file(&self.dir.join("keys"), &name, &vouched)?;
            }
        }
        Ok(())
    }
}

/// Where one server adds its heads.
#[derive(Debug)]
pub(crate) struct HeadWriter {
    dir: HeadsDir,
    server: String,
    /// The file in use and when it was begun.
    file: Option<(PathBuf, i64)>,
}

impl HeadWriter {
    pub fn new(dir: HeadsDir, server: String) -> Self {
        Self { dir, server, file: None }
    }

    pub fn dir(&self) -> &HeadsDir {
        &self.dir
    }

    /// Adds one line, on the disk when it returns.
    ///
    /// A line that is cut short by a crash or a full disk is the last one of its file: the next head
    /// goes to a new one.
    pub fn add(&mut self, head: &Signed<Head>) -> Result<(), Error> {
        let mut line =
            serde_json::to_vec(head).map_err(|error| Error::malformed(error.to_string()))?;
        line.push(b'\n');
        let Head { incarnation, sealed_at, .. } = head.statement;
        let folder = self.dir.path().join(incarnation.to_string());
        let usable = self.file.take().filter(|(path, begun)| {
            sealed_at - begun < FILE_SPAN && path.starts_with(&folder) && path.exists()
        });
        let (path, begun, is_new) = match usable {
            Some((path, begun)) => (path, begun, false),
            None => {
                std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
                (folder.join(format!("{sealed_at:020}-{}.heads", self.server)), sealed_at, true)
            }
        };
        let mut open = File::options();
        let open = if is_new { open.create_new(true) } else { &mut open };
        let mut file = open.append(true).open(&path).map_err(Error::io(&path))?;
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(Error::io(&path))?;
        if is_new {
            for dir in [folder.as_path(), self.dir.path()] {
                sync(dir)?;
            }
        }
        self.file = Some((path, begun));
        Ok(())
    }
}

/// Heads one after another; `None` for a line that is none.
pub(crate) type Lines = Box<dyn Iterator<Item = Result<Option<Signed<Head>>, Error>> + Send>;

/// The whole lines of a file of heads; what stands behind the last line's end was never finished.
pub(crate) fn lines(path: &Path) -> Result<Lines, Error> {
    let mut reader = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let path = path.to_owned();
    Ok(Box::new(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match (&mut reader).take(LINE).read_until(b'\n', &mut line) {
            Err(error) => Some(Err(Error::io(&path)(error))),
            Ok(_) if line.last() == Some(&b'\n') => Some(Ok(serde_json::from_slice(&line).ok())),
            // Longer than any of ours: whatever follows is not read as heads.
            Ok(_) if line.len() as u64 == LINE => match reader.seek(SeekFrom::End(0)) {
                Ok(_) => Some(Ok(None)),
                Err(error) => Some(Err(Error::io(&path)(error))),
            },
            Ok(_) => None,
        }
    })))
}

fn last_line(path: &Path) -> Result<Option<Signed<Head>>, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(2 * LINE)))
        .and_then(|_| file.read_to_end(&mut tail))
        .map_err(Error::io(path))?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let whole = tail.get(..end).unwrap_or_default();
    let line = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line).ok())
}

/// The entries of a directory by name; none when it does not exist.
fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io(dir))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(Error::io(dir))?;
    paths.sort();
    Ok(paths)
}

fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for path in list(dir)?.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let text = std::fs::read(path).map_err(Error::io(path))?;
        let read = serde_json::from_slice(&text);
        found.push(read.map_err(|_| Error::malformed(path.display().to_string()))?);
    }
    Ok(found)
}

/// Writes a file beside its place and links it there: never half, and never over another one.
fn add_file<T: Serialize>(dir: &Path, name: &str, content: &T) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let text =
        serde_json::to_vec_pretty(content).map_err(|error| Error::malformed(error.to_string()))?;
    let (path, draft) = (dir.join(name), dir.join(format!(".{name}.{}", Uuid::new_v4())));
    let mut file =
        File::options().write(true).create_new(true).open(&draft).map_err(Error::io(&draft))?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match std::fs::hard_link(&draft, &path) {
        // Another server said the same.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = std::fs::remove_file(&draft);
    linked.and(removed).map_err(Error::io(&path))?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}
