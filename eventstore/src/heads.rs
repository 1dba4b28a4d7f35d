//! The second place: signed heads of the chain, the lives of the log, and the keys, as files.
//!
//! `<life>/<time>-<server>.heads` has one head on each line, only ever added to. `lives/` says how a
//! restored log came to be, `keys/` which keys signed. No file is ever written over: the directory may
//! be append-only, a mount of another host, or be copied elsewhere.

mod read;
mod writer;

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::Position;
use crate::error::Error;
use crate::seal::Seal;
use crate::signed::{Signed, Statement, Vouched};
use crate::verify::Fault;
use crate::{hex, signed};

use read::{HEADS, list, read_all};
pub(crate) use read::{Read, Stretch, Survey, is_ours, lines};
pub(crate) use writer::HeadWriter;

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
    /// The last event that it keeps of the life before; in statements without a proof, the last one of
    /// the log when it was signed.
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
    /// Missing in statements that programs before it signed: those only name the last block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What the log was when its new life was signed, after it had been verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// SHA-256 over the leaves of all events up to the statement's position, those included that no
    /// block covered, in hexadecimal digits.
    pub digest: String,
    /// What did not fit, and was accepted by whoever signed; it is shown for ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Fault>,
    /// Whose heads were gone, each time that this was accepted: positions alone do not tell, since another life
    /// uses them again. Programs before it did not note that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
}

/// Heads of one life that are gone: those of the events from one position to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub incarnation: Uuid,
    pub from: Position,
    pub to: Position,
}

impl Life {
    /// The last event of the life before that is in this one.
    pub(crate) fn kept(&self) -> Position {
        // Without a proof the log's own event of the restoration was counted in.
        self.position - u64::from(self.proof.is_none()).min(self.position)
    }
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

    /// The files with the heads of a life, oldest first. Something else in the place of their directory
    /// is given as a file that [`lines`] finds unreadable.
    pub(crate) fn files(&self, incarnation: Uuid) -> Result<Vec<PathBuf>, Error> {
        let folder = self.dir.join(incarnation.to_string());
        let Ok(mut files) = list(&folder) else { return Ok(vec![folder]) };
        files.retain(|path| path.extension().is_some_and(|ending| ending == HEADS));
        Ok(files)
    }

    /// Whether a server has files with heads of a life here.
    pub(crate) fn has_files(&self, incarnation: Uuid, server: &str) -> Result<bool, Error> {
        Ok(!self.files_of(incarnation, server)?.is_empty())
    }

    /// A server's files with heads of a life, as they are now.
    pub(crate) fn files_of(&self, incarnation: Uuid, server: &str) -> Result<Vec<Stretch>, Error> {
        let ending = format!("-{server}.{HEADS}");
        let files = self.files(incarnation)?;
        let own = files.iter().filter(|file| file.to_string_lossy().ends_with(&ending));
        Ok(own.map(|file| Stretch::of(file)).collect())
    }

    /// All heads of a life, as far as its files can be read; lines that cannot are left out.
    pub(crate) fn each(
        &self,
        incarnation: Uuid,
        mut take: impl FnMut(Signed<Head>),
    ) -> Result<(), Error> {
        for path in self.files(incarnation)? {
            for head in lines(&path)? {
                if let Some(head) = head? {
                    take(head);
                }
            }
        }
        Ok(())
    }

    /// The newest head of a life, as far as its files can be read.
    pub fn latest(&self, incarnation: Uuid) -> Result<Option<Signed<Head>>, Error> {
        let mut latest: Option<Signed<Head>> = None;
        self.each(incarnation, |head| {
            if latest.as_ref().is_none_or(|known| known.statement.block < head.statement.block) {
                latest = Some(head);
            }
        })?;
        Ok(latest)
    }

    /// The head on the first line that can be read.
    pub(crate) fn earliest(&self, incarnation: Uuid) -> Result<Option<Signed<Head>>, Error> {
        for path in self.files(incarnation)? {
            for head in lines(&path)? {
                if let Some(head) = head? {
                    return Ok(Some(head));
                }
            }
        }
        Ok(None)
    }

    /// How restored lives began.
    pub(crate) fn lives(&self) -> Result<Read<Signed<Life>>, Error> {
        read_all(&self.dir.join("lives"))
    }

    /// The keys that have signed, each said by another one or by itself.
    pub(crate) fn vouched(&self) -> Result<Read<Signed<Vouched>>, Error> {
        read_all(&self.dir.join("keys"))
    }

    /// Keeps how a life began.
    pub fn add_life(&self, life: &Signed<Life>) -> Result<(), Error> {
        let dir = self.dir.join("lives");
        let mut name = format!("{}.json", life.statement.incarnation);
        // A file of this name that says something else must not stand in for it.
        if dir.join(&name).exists() {
            name = format!("{}-{}.json", life.statement.incarnation, Uuid::new_v4());
        }
        add_file(&dir, &name, life)
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
