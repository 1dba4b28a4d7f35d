//! A SHA-256 and a count for each part of a backup, taken while its lines go by.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ByName, Item, line};
use crate::error::Error;

/// One part: the events, or a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    pub rows: u64,
    /// In hexadecimal digits, over the part's lines.
    pub sha256: String,
}

/// All parts by name; the same contents give the same digests on both stores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digests(pub ByName);

impl Digests {
    /// One digest of them all, empty parts left out.
    pub fn total(&self) -> String {
        let mut hash = Sha256::new();
        for (name, section) in self.0.iter().filter(|(_, section)| section.rows > 0) {
            hash.update(format!("{name} {} {}\n", section.rows, section.sha256));
        }
        crate::hex(&hash.finalize())
    }

    /// Digest of the events.
    pub fn log(&self) -> String {
        self.0.get("events").map(|section| section.sha256.clone()).unwrap_or_default()
    }
}

/// Digests in the making.
#[derive(Default)]
pub(crate) struct Sections {
    parts: std::collections::BTreeMap<&'static str, (u64, Sha256)>,
}

impl Sections {
    /// Counts an item in; returns its line, without the end of line.
    pub fn take(&mut self, item: &Item) -> Result<String, Error> {
        let text = line::write(item)?;
        let name = match item {
            Item::Event(_) => "events",
            Item::Row(table, _) => table.name,
        };
        let (rows, hash) = self.parts.entry(name).or_default();
        *rows += 1;
        hash.update(text.as_bytes());
        hash.update(b"\n");
        Ok(text)
    }

    pub fn finish(self) -> Digests {
        let section =
            |(rows, hash): (u64, Sha256)| Section { rows, sha256: crate::hex(&hash.finalize()) };
        let parts = self.parts.into_iter().map(|(name, part)| (name.to_owned(), section(part)));
        Digests(parts.collect())
    }
}
