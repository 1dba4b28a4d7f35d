//! The file: written beside its place and moved there when it is whole; read line by line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::draft;
use super::{Digests, FORMAT, Header, Item, Sections, Sink, Trailer, line};
use crate::append::Position;
use crate::error::Error;

/// Bytes of one line; an append has at most 4 MiB, which JSON may write six times as long.
const LONGEST_LINE: u64 = 64 << 20;

/// A backup in the making; what was not finished is removed.
pub struct BackupFile {
    path: PathBuf,
    draft: PathBuf,
    out: Option<GzEncoder<BufWriter<File>>>,
    hash: Sha256,
    lines: u64,
    sections: Sections,
    header: Option<Header>,
}

impl BackupFile {
    /// Begins a new file, for its owner only; one that is there already is not overwritten.
    pub fn create(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(Error::io(path)(exists));
        }
        let (draft, file) = draft::create(path)?;
        Ok(Self {
            path: path.to_owned(),
            draft,
            out: Some(GzEncoder::new(BufWriter::with_capacity(1 << 20, file), Compression::fast())),
            hash: Sha256::new(),
            lines: 0,
            sections: Sections::default(),
            header: None,
        })
    }

    /// Removes what backups to the same file that were killed have left beside it; returns those files.
    pub fn remove_left(&self) -> Vec<PathBuf> {
        draft::remove_left(&self.path)
    }

    /// Writes the last line, with what a replay came to, and puts the file into its place.
    pub fn finish(mut self, state: Digests) -> Result<(Header, Trailer), Error> {
        let sections = std::mem::take(&mut self.sections).finish();
        let sha256 = crate::hex(&self.hash.clone().finalize());
        let trailer = Trailer { sections, state, lines: self.lines, sha256 };
        let text =
            serde_json::to_string(&trailer).map_err(|error| Error::malformed(error.to_string()))?;
        self.line(&text)?;
        let failed = |path: &Path| Error::io(path.to_owned());
        let out = self.out.take().ok_or(Error::Closed)?;
        let file = out.finish().map_err(failed(&self.draft))?;
        let file = file.into_inner().map_err(|error| failed(&self.draft)(error.into_error()))?;
        file.sync_all().map_err(failed(&self.draft))?;
        match std::fs::hard_link(&self.draft, &self.path) {
            // Some file systems have no links.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                std::fs::rename(&self.draft, &self.path)
            }
            linked => linked,
        }
        .map_err(failed(&self.path))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
        let header = self.header.take().ok_or_else(|| Error::malformed("a backup of nothing"))?;
        Ok((header, trailer))
    }

    fn line(&mut self, text: &str) -> Result<(), Error> {
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
        self.lines += 1;
        let out = self.out.as_mut().ok_or(Error::Closed)?;
        let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
        written.map_err(Error::io(&self.draft))
    }
}

impl Sink for BackupFile {
    fn begin(&mut self, header: &Header) -> Result<(), Error> {
        let text =
            serde_json::to_string(header).map_err(|error| Error::malformed(error.to_string()))?;
        self.header = Some(header.clone());
        self.line(&text)
    }

    fn item(&mut self, item: &Item) -> Result<(), Error> {
        let text = self.sections.take(item)?;
        self.line(&text)
    }
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        // Already in its place, or not worth keeping.
        if std::fs::remove_file(&self.draft).is_err() {}
    }
}

/// Reads a backup; the end of its items is the end of a whole file, or an error.
pub struct BackupReader {
    path: PathBuf,
    input: BufReader<GzDecoder<BufReader<File>>>,
    hash: Sha256,
    lines: u64,
    sections: Option<Sections>,
    header: Header,
    /// Of the last event that was read.
    position: Position,
    trailer: Option<Trailer>,
}

impl BackupReader {
    /// Opens a file and reads its first line.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut input = BufReader::with_capacity(1 << 20, GzDecoder::new(BufReader::new(file)));
        let mut text = String::new();
        let none = || Error::malformed(format!("{} is not a backup of Proximity", path.display()));
        std::io::Read::take(&mut input, LONGEST_LINE).read_line(&mut text).map_err(|_| none())?;
        let header: Header = serde_json::from_str(&text).map_err(|_| none())?;
        if header.format != FORMAT {
            return Err(Error::malformed(format!(
                "{} has format {}, this program reads {FORMAT}",
                path.display(),
                header.format
            )));
        }
        let mut hash = Sha256::new();
        hash.update(text.as_bytes());
        let sections = Some(Sections::default());
        let path = path.to_owned();
        Ok(Self { path, input, hash, lines: 1, sections, header, position: 0, trailer: None })
    }

    /// What was backed up, and when.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last line; `None` until everything before it was read.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// The next item; `None` after the last one, when everything was as the last line says.
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let mut text = String::new();
        let read = std::io::Read::take(&mut self.input, LONGEST_LINE).read_line(&mut text);
        let damaged = |why: &str| {
            Error::malformed(format!("the backup {} is damaged: {why}", self.path.display()))
        };
        if read.map_err(|error| damaged(&error.to_string()))? == 0 {
            return Err(damaged("its end is missing"));
        }
        if text.starts_with("{\"sections\"") {
            let trailer: Trailer = serde_json::from_str(&text)
                .map_err(|_| damaged("its last line is not readable"))?;
            let found = self.sections.take().unwrap_or_default().finish();
            let sha256 = crate::hex(&self.hash.clone().finalize());
            if trailer.sha256 != sha256 || trailer.lines != self.lines {
                return Err(damaged("its checksum is another one"));
            }
            super::must_equal(&trailer.sections, &found)?;
            if self.header.position != self.position {
                return Err(damaged("its first line names another last event"));
            }
            // The compression has a checksum of its own, at the very end.
            let mut rest = [0];
            match std::io::Read::read(&mut self.input, &mut rest) {
                Ok(0) => {}
                Ok(_) => return Err(damaged("something stands behind its end")),
                Err(error) => return Err(damaged(&error.to_string())),
            }
            // It has one part: whatever follows is none of ours, also where it unpacks to nothing.
            match self.input.get_mut().get_mut().fill_buf() {
                Ok([]) => {}
                Ok(_) => return Err(damaged("something stands behind its end")),
                Err(error) => return Err(damaged(&error.to_string())),
            }
            self.trailer = Some(trailer);
            return Ok(None);
        }
        self.hash.update(text.as_bytes());
        self.lines += 1;
        let item = line::read(text.trim_end_matches('\n'))?;
        if let Some(sections) = &mut self.sections {
            sections.take(&item)?;
        }
        if let Item::Event(event) = &item {
            self.position = event.position;
        }
        Ok(Some(item))
    }
}
