//! What can be read of a directory of heads, and what cannot: neither may hide the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Head, HeadsDir};
use crate::error::Error;
use crate::signed::{Signed, Trusted};

/// More than any line has.
const LINE: u64 = 4_096;

/// Files of one kind.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub found: Vec<T>,
    /// Those that are none of ours, or damaged.
    pub unreadable: Vec<PathBuf>,
}

/// What the heads of one life come to.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The newest one that a trusted key signed.
    pub newest: Option<Signed<Head>>,
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
                Some(head) if head.is_trusted(trusted) => survey.take(head),
                None => {}
                Some(_) => {
                    for head in lines(&path)? {
                        let ours = head?.filter(|head| {
                            head.statement.incarnation == incarnation && head.is_trusted(trusted)
                        });
                        if let Some(head) = ours {
                            survey.take(head);
                        }
                    }
                }
            }
        }
        Ok(survey)
    }
}

impl Survey {
    fn take(&mut self, head: Signed<Head>) {
        let block = head.statement.block;
        if self.newest.as_ref().is_none_or(|known| known.statement.block < block) {
            self.newest = Some(head);
        }
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
            // Longer than any of ours: the next line is read again.
            Ok(_) if line.len() as u64 == LINE => match reader.skip_until(b'\n') {
                Ok(_) => Some(Ok(None)),
                Err(error) => Some(Err(Error::io(&path)(error))),
            },
            Ok(_) => None,
        }
    })))
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
    for path in list(dir)?.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let text = std::fs::read(path).map_err(Error::io(path))?;
        match serde_json::from_slice(&text) {
            Ok(read) => found.push(read),
            Err(_) => unreadable.push(path.clone()),
        }
    }
    Ok(Read { found, unreadable })
}
