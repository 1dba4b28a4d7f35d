//! What a replay of events comes to: a digest of each read model's rows, without any database.

use std::collections::BTreeMap;

use proximity_eventstore::{Page, Stored};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::fold::AnyFold;
use crate::views::standard;

/// Events held back until there are enough of them to fold at once.
const PAGE: usize = 5_000;

/// Folds every event into every read model; all rows are in memory meanwhile.
pub struct Replay {
    folds: Vec<Folding>,
    page: Page,
    reached: u64,
}

struct Folding {
    name: &'static str,
    fold: Box<dyn AnyFold>,
}

/// Rows of one read model, and their SHA-256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub rows: u64,
    pub sha256: String,
}

impl Default for Replay {
    fn default() -> Self {
        let folding = |projection: Box<dyn crate::AnyProjection>| Folding {
            name: projection.name(),
            fold: projection.fold(),
        };
        let folds = standard().into_iter().map(folding).collect();
        Self { folds, page: Page::default(), reached: 0 }
    }
}

impl Replay {
    /// Takes the next event; one that is out of turn or cannot be applied is an error.
    pub fn take(&mut self, event: Stored<'_>) -> Result<(), Error> {
        let after = self.reached + self.page.len() as u64;
        if event.position != after + 1 {
            return Err(Error::Gap { after, found: event.position });
        }
        self.page.push(event);
        if self.page.len() >= PAGE { self.fold() } else { Ok(()) }
    }

    fn fold(&mut self) -> Result<(), Error> {
        for folding in &mut self.folds {
            // Nothing was ever written, so a row that is not in memory does not exist.
            let absent = folding.fold.missing(&self.page, self.reached);
            folding.fold.admit(absent, Vec::new())?;
            let folded = folding.fold.fold(&self.page, self.reached);
            if let Some(reason) = folded.stopped {
                let (name, position) = (folding.name.to_owned(), folded.reached + 1);
                return Err(Error::Stopped { name, position, reason });
            }
        }
        self.reached += self.page.len() as u64;
        self.page.truncate(0);
        Ok(())
    }

    /// Position of the last event, and each read model's digest.
    pub fn finish(mut self) -> Result<(u64, BTreeMap<String, Replayed>), Error> {
        self.fold()?;
        let mut found = BTreeMap::new();
        for mut folding in self.folds {
            let rows = folding.fold.changes()?.take_rows();
            let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort_unstable();
            let mut hash = Sha256::new();
            for row in &rows {
                hash.update(row.as_bytes());
                hash.update(b"\n");
            }
            let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            let rows = rows.len() as u64;
            found.insert(folding.name.to_owned(), Replayed { rows, sha256 });
        }
        Ok((self.reached, found))
    }
}
