//! Rows in memory while events are folded into them, and what has to be written of them.

use hashbrown::{HashMap, HashSet};

use proximity_eventstore::{Page, Position, Stored};

use crate::Error;
use crate::backend::Rows;
use crate::cell::Cell;
use crate::projection::{At, Projection, read};

/// What a fold has to write, in the order of the table's columns.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows that the table does not have.
    pub inserts: Rows,
    /// Rows that it has otherwise.
    pub updates: Rows,
    pub deletes: Vec<String>,
}

impl Changes {
    /// The rows of both kinds.
    pub(crate) fn take_rows(&mut self) -> Rows {
        let mut rows = std::mem::take(&mut self.inserts);
        rows.append(&mut self.updates);
        rows
    }
}

/// How far a fold came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The last event that was applied, or was not this projection's.
    pub reached: Position,
    /// Why the next one was not.
    pub stopped: Option<String>,
}

/// A fold without its types.
pub trait AnyFold: Send + Sync {
    /// The rows that a page needs and that are not in memory.
    fn missing(&self, page: &Page, after: Position) -> Vec<String>;
    /// Takes loaded rows (key, body); those asked for and not there do not exist.
    fn admit(&mut self, asked: Vec<String>, found: Vec<(String, String)>) -> Result<(), Error>;
    /// Applies a page's events after this position, up to one that cannot be applied.
    fn fold(&mut self, page: &Page, after: Position) -> Folded;
    /// What changed since the last call; after a commit that failed, [`AnyFold::forget`].
    fn changes(&mut self) -> Result<Changes, Error>;
    /// How many rows are held in memory.
    fn size(&self) -> usize;
    /// How many rows [`AnyFold::changes`] would give.
    fn unwritten(&self) -> usize;
    /// Drops everything in memory.
    fn forget(&mut self);
    /// What changed since the last call; lets go what no event will change any more.
    fn settle(&mut self) -> Result<Changes, Error>;
    /// The same for a caller that writes what this gives before the next call's: lets go also what has
    /// not changed since the last call, and is in the table.
    fn flush(&mut self) -> Result<Changes, Error>;
    /// Key and body, as the API shows it, of each row in memory.
    fn held(&self) -> Result<Vec<(String, serde_json::Value)>, Error>;
}

struct Slot<R> {
    row: Option<R>,
    dirty: bool,
    /// The table has it, or what was given to be written makes it so.
    written: bool,
}

impl<R> Slot<R> {
    fn absent() -> Self {
        Self { row: None, dirty: false, written: false }
    }
}

pub(crate) struct Fold<P: Projection> {
    rows: HashMap<String, Slot<P::Row>>,
    /// The keys of the rows that changed since they were last asked for.
    dirty: Vec<String>,
}

impl<P: Projection> Default for Fold<P> {
    fn default() -> Self {
        Self { rows: HashMap::new(), dirty: Vec::new() }
    }
}

/// The only version of events there is so far; a payload of another one needs an upcaster first.
const READABLE: &str = "1";

impl<P: Projection> Fold<P> {
    fn apply(&mut self, stored: Stored<'_>) -> Result<(), String> {
        if stored.event_version != READABLE {
            return Err(format!(
                "{} has version {}, which is not known",
                stored.event_type, stored.event_version
            ));
        }
        let event: P::Event = read(stored).map_err(|cannot| cannot.0)?;
        let at = At::of(stored);
        let slot = self.rows.entry_ref(stored.aggregate_id).or_insert_with(Slot::absent);
        P::apply(&mut slot.row, event, at)
            .map_err(|cannot| format!("{}: {cannot}", stored.event_type))?;
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(stored.aggregate_id.to_owned());
        }
        Ok(())
    }

    /// What changed since the last call; of those rows, the ones that are not to be kept are let go.
    fn changes_keeping(&mut self, keeps: impl Fn(&P::Row) -> bool) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let mut dirty = std::mem::take(&mut self.dirty);
        // Neighbours in the index of keys are written together.
        dirty.sort_unstable();
        // Grows once for all rows; a text of its own would grow a dozen times for each.
        let mut json = Vec::new();
        for key in dirty {
            let Some(slot) = self.rows.get_mut(&key) else { continue };
            slot.dirty = false;
            let was_written = slot.written;
            slot.written = slot.row.is_some();
            let Some(row) = &slot.row else {
                if was_written {
                    changes.deletes.push(key);
                }
                continue;
            };
            let mut columns = P::columns(row);
            let mut cells = Vec::with_capacity(columns.len() + 2);
            cells.push(Cell::from(key.as_str()));
            cells.append(&mut columns);
            cells.push(Cell::Text(Self::body(row, &mut json)?));
            if was_written { &mut changes.updates } else { &mut changes.inserts }.push(cells);
            if !keeps(row) {
                self.rows.remove(&key);
            }
        }
        Ok(changes)
    }

    fn body(row: &P::Row, json: &mut Vec<u8>) -> Result<String, Error> {
        json.clear();
        serde_json::to_writer(&mut *json, row).map_err(|error| Self::unreadable(&error))?;
        std::str::from_utf8(json).map(str::to_owned).map_err(|error| Self::unreadable(&error))
    }

    fn unreadable(error: &dyn std::fmt::Display) -> Error {
        Error::Row { table: P::TABLE.name.to_owned(), reason: error.to_string() }
    }
}

impl<P: Projection> AnyFold for Fold<P> {
    fn missing(&self, page: &Page, after: Position) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut last = "";
        let mut asked = Vec::new();
        for (id, sequence) in page.streams(P::STREAM, after) {
            // Events of a stream often come in a row.
            if std::mem::replace(&mut last, id) == id {
                continue;
            }
            // A stream's first event on this page decides: if it is its first ever, there is no row.
            if !self.rows.contains_key(id) && seen.insert(id) && sequence > 1 {
                asked.push(id.to_owned());
            }
        }
        asked
    }

    fn admit(&mut self, asked: Vec<String>, found: Vec<(String, String)>) -> Result<(), Error> {
        for key in asked {
            self.rows.insert(key, Slot::absent());
        }
        for (key, body) in found {
            let row = serde_json::from_str(&body).map_err(|error| Self::unreadable(&error))?;
            self.rows.insert(key, Slot { row: Some(row), dirty: false, written: true });
        }
        Ok(())
    }

    fn fold(&mut self, page: &Page, after: Position) -> Folded {
        for stored in page.of(P::STREAM, after) {
            if let Err(reason) = self.apply(stored) {
                return Folded { reached: stored.position - 1, stopped: Some(reason) };
            }
        }
        Folded { reached: page.last().unwrap_or(after).max(after), stopped: None }
    }

    fn changes(&mut self) -> Result<Changes, Error> {
        self.changes_keeping(|_| true)
    }

    fn size(&self) -> usize {
        self.rows.len()
    }

    fn unwritten(&self) -> usize {
        self.dirty.len()
    }

    fn forget(&mut self) {
        self.rows.clear();
        self.dirty.clear();
    }

    fn settle(&mut self) -> Result<Changes, Error> {
        let changes = self.changes_keeping(|row| !P::is_final(row))?;
        for gone in &changes.deletes {
            self.rows.remove(gone);
        }
        Ok(changes)
    }

    fn flush(&mut self) -> Result<Changes, Error> {
        // A row that is deleted now stays as well: until that is written, the table still has it.
        self.rows.retain(|_, slot| slot.dirty);
        self.changes_keeping(|row| !P::is_final(row))
    }

    fn held(&self) -> Result<Vec<(String, serde_json::Value)>, Error> {
        let rows = self.rows.iter().filter_map(|(key, slot)| Some((key, slot.row.as_ref()?)));
        rows.map(|(key, row)| {
            let body = serde_json::to_value(row).map_err(|error| Self::unreadable(&error))?;
            Ok((key.clone(), crate::replay::shown(P::NAME, body)))
        })
        .collect()
    }
}

/// Stands where a fold is while it works on another thread.
pub(crate) struct Absent;

impl AnyFold for Absent {
    fn missing(&self, _: &Page, _: Position) -> Vec<String> {
        Vec::new()
    }

    fn admit(&mut self, _: Vec<String>, _: Vec<(String, String)>) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn fold(&mut self, _: &Page, after: Position) -> Folded {
        Folded { reached: after, stopped: Some("the fold is elsewhere".to_owned()) }
    }

    fn changes(&mut self) -> Result<Changes, Error> {
        Err(Error::Closed)
    }

    fn size(&self) -> usize {
        0
    }

    fn unwritten(&self) -> usize {
        0
    }

    fn forget(&mut self) {}

    fn settle(&mut self) -> Result<Changes, Error> {
        Err(Error::Closed)
    }

    fn flush(&mut self) -> Result<Changes, Error> {
        Err(Error::Closed)
    }

    fn held(&self) -> Result<Vec<(String, serde_json::Value)>, Error> {
        Err(Error::Closed)
    }
}
