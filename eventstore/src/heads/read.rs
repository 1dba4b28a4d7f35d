//! What can be read of a directory of heads, and what cannot: neither may hide the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Head, HeadsDir};
use crate::error::Error;
use crate::signed::{Signed, Trusted};

/// The ending of files with heads.
pub(super) const HEADS: &str = "heads";
/// More than any line has.
const LINE: u64 = 4_096;
/// More than any statement has.
const STATEMENT: u64 = 4 << 20;

/// Files of one kind.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub found: Vec<T>,
    /// Those that are none of ours, or damaged.
    pub unreadable: Vec<PathBuf>,
}

/// A file of heads as far as it has been read or written: it only ever grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub path: PathBuf,
    /// In bytes.
    pub length: u64,
}

impl Stretch {
    /// A file as it is now; an empty one where there is none.
    pub fn of(path: &Path) -> Self {
        let length = path.symlink_metadata().map_or(0, |found| found.len());
        Self { path: path.to_owned(), length }
    }

    /// Whether the file is there and has at least what it had.
    pub fn is_here(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|found| found.len() >= self.length)
    }
}

/// What the heads of one life come to.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The newest one that a trusted key signed.
    pub newest: Option<Signed<Head>>,
    /// The file that has it, as long as it was then.
    pub newest_in: Option<Stretch>,
    /// Whether any line is a head, whoever signed it.
    pub readable: bool,
    /// A file with a line that is none.
    pub unreadable: Option<PathBuf>,
}

impl HeadsDir {
    /// Reads all heads of a life.
    pub(crate) fn survey(&self, incarnation: Uuid, trusted: &Trusted) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        for path in self.files(incarnation)? {
            let mut last: Option<Signed<Head>> = None;
            let file = Stretch::of(&path);
            for head in lines(&path)? {
                let Some(head) = head?.filter(|head| head.statement.incarnation == incarnation)
                else {
                    survey.unreadable = Some(path.clone());
                    continue;
                };
                survey.readable = true;
                if last.as_ref().is_none_or(|last| last.statement.block < head.statement.block) {
                    last = Some(head);
                }
            }
            // Signatures take long: all are only looked at when the last one is not ours.
            match last {
                Some(head) if head.is_trusted(trusted) => survey.take(head, &file),
                None => {}
                Some(_) => {
                    for head in lines(&path)? {
                        let ours = head?.filter(|head| {
                            head.statement.incarnation == incarnation && head.is_trusted(trusted)
                        });
                        if let Some(head) = ours {
                            survey.take(head, &file);
                        }
                    }
                }
            }
        }
        Ok(survey)
    }
}

impl Survey {
    fn take(&mut self, head: Signed<Head>, file: &Stretch) {
        let block = head.statement.block;
        if self.newest.as_ref().is_none_or(|known| known.statement.block < block) {
            self.newest = Some(head);
            self.newest_in = Some(file.clone());
        }
    }
}

/// Heads one after another; `None` for a line that is none.
pub(crate) type Lines = Box<dyn Iterator<Item = Result<Option<Signed<Head>>, Error>> + Send>;

/// The whole lines of a file of heads; what stands behind the last line's end was never finished, however
/// long it is: a power cut may leave a file that ends with zeros.
///
/// What cannot be read is one line that is no head: whoever can put something there must not be able to
/// stop those who read the rest.
pub(crate) fn lines(path: &Path) -> Result<Lines, Error> {
    let is_named_so = path.extension().is_some_and(|ending| ending == HEADS);
    let reader = match open_regular(path, OFlags::RDONLY) {
        Ok(file) if is_named_so => Some(BufReader::new(file)),
        // It was taken away since it was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Box::new(std::iter::empty()));
        }
        Err(error) if is_ours(&error) => return Err(Error::io(path)(error)),
        Ok(_) | Err(_) => None,
    };
    let Some(mut reader) = reader else { return Ok(Box::new(std::iter::once(Ok(None)))) };
    let path = path.to_owned();
    let mut ended = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let (mut line, mut is_too_long) = (Vec::new(), false);
        let whole = loop {
            line.clear();
            match (&mut reader).take(LINE).read_until(b'\n', &mut line) {
                Ok(_) if line.last() == Some(&b'\n') && is_too_long => break Ok(None),
                Ok(_) if line.last() == Some(&b'\n') => {
                    break Ok(serde_json::from_slice(&line).ok());
                }
                // Longer than any of ours, if it ends at all.
                Ok(_) if line.len() as u64 == LINE => is_too_long = true,
                Ok(_) => return None,
                Err(error) => break Err(error),
            }
        };
        Some(whole.or_else(|error| {
            ended = true;
            if is_ours(&error) { Err(Error::io(&path)(error)) } else { Ok(None) }
        }))
    })))
}

/// Opens a regular file that no link stands for. Anything else may keep whoever opens or reads it waiting
/// for ever.
pub(super) fn open_regular(path: &Path, how: OFlags) -> Result<File, std::io::Error> {
    let other = || std::io::Error::new(ErrorKind::InvalidInput, "not a regular file");
    if !path.symlink_metadata()?.is_file() {
        return Err(other());
    }
    // It may be another thing by now.
    let how = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, how, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(other()) }
}

/// Whether it is this process that cannot read, rather than the file that cannot be read.
pub(crate) fn is_ours(error: &std::io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        .contains(&Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// The entries of a directory by name; none when it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io(dir))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(Error::io(dir))?;
    paths.sort();
    Ok(paths)
}

/// The JSON files of a directory.
pub(super) fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Read<T>, Error> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    let Ok(paths) = list(dir) else { return Ok(Read { found, unreadable: vec![dir.to_owned()] }) };
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let mut text = Vec::new();
        let read = open_regular(path, OFlags::RDONLY)
            .and_then(|file| file.take(STATEMENT).read_to_end(&mut text));
        match read.map(|_| serde_json::from_slice(&text)) {
            Ok(Ok(read)) => found.push(read),
            Err(error) if is_ours(&error) => return Err(Error::io(path)(error)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(Err(_)) | Err(_) => unreadable.push(path.clone()),
        }
    }
    Ok(Read { found, unreadable })
}
