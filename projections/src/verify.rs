//! Holds the live rows against a fold of the log made anew, row by row.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_eventstore::Position;
use serde::Serialize;

use crate::backend::{Session, Slot};
use crate::build::{BuildProgress, OnProgress};
use crate::cell::{Cell, Kind, Table};
use crate::error::Error;
use crate::fold::AnyFold;
use crate::pace::Pace;
use crate::pages::Pages;
use crate::step::fold;
use crate::views::Inner;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub name: String,
    /// The position at which rows and log were compared.
    pub position: Position,
    pub rows_compared: u64,
    pub rows_different: u64,
    /// The first hundred differences.
    pub differences: Vec<Difference>,
}

/// A row that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub table: String,
    pub key: String,
    /// What the live row holds; `None` when there is none.
    pub live: Option<String>,
    /// What the log says; `None` when there should be no row.
    pub folded: Option<String>,
}

/// How many differences are kept.
const SHOWN: usize = 100;
/// Live rows read at once.
const BATCH: i64 = 5_000;
/// How long the live rows may take to reach the log's head before it is called an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compares one projection; every row is in memory meanwhile.
pub(crate) async fn verify(
    inner: &Arc<Inner>,
    index: usize,
    on_progress: &OnProgress,
) -> Result<Verdict, Error> {
    let projection = inner.projections[index].as_ref();
    let mut folding = Folding {
        inner,
        fold: projection.fold(),
        pages: Pages::new(&inner.feed),
        reached: 0,
        name: projection.name(),
        started: Instant::now(),
        on_progress,
    };
    let waiting = Instant::now();
    loop {
        let mut session = inner.backend.snapshot().await?;
        let live = session.marks(Slot::Live, false).await?;
        let live = live.into_iter().find(|mark| mark.name == projection.name());
        let live = live.ok_or_else(|| Error::NoSuchProjection { name: folding.name.to_owned() })?;
        let name = || folding.name.to_owned();
        let of_another = match live.version.cmp(&projection.version()) {
            Ordering::Less => Some(Error::Outdated { name: name() }),
            Ordering::Equal => None,
            Ordering::Greater => Some(Error::Superseded { name: name() }),
        };
        if let Some(error) = of_another {
            session.rollback().await?;
            return Err(error);
        }
        // The long part is done without a snapshot, which would keep old rows from being cleaned.
        if folding.reached == 0 && live.position > 0 {
            session.rollback().await?;
            folding.to(live.position).await?;
            continue;
        }
        if live.position < folding.reached {
            session.rollback().await?;
            if waiting.elapsed() > PATIENCE {
                let (name, position) = (folding.name.to_owned(), folding.reached);
                return Err(Error::Behind { name, position, waited: PATIENCE });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        folding.to(live.position).await?;
        let rows = folding.fold.changes()?.take_rows();
        let mut verdict = Verdict {
            name: folding.name.to_owned(),
            position: live.position,
            rows_compared: 0,
            rows_different: 0,
            differences: Vec::new(),
        };
        compare(session.as_mut(), &projection.table(), rows, &mut verdict).await?;
        session.rollback().await?;
        return Ok(verdict);
    }
}

struct Folding<'a> {
    inner: &'a Arc<Inner>,
    fold: Box<dyn AnyFold>,
    pages: Pages,
    reached: Position,
    name: &'static str,
    started: Instant,
    on_progress: &'a OnProgress,
}

impl Folding<'_> {
    async fn to(&mut self, position: Position) -> Result<(), Error> {
        let head = self.inner.feed.head().await?;
        if position > head {
            return Err(Error::Ahead { name: self.name.to_owned(), position, head });
        }
        while self.reached < position {
            let page = Arc::new(self.pages.next(self.reached, position).await?);
            // Nothing was ever written, so a row that is not in memory does not exist.
            let absent = self.fold.missing(&page, self.reached);
            self.fold.admit(absent, Vec::new())?;
            let folded = fold(&mut self.fold, &page, self.reached, Pace::Beside).await?;
            if let Some(reason) = folded.stopped {
                let name = self.name.to_owned();
                return Err(Error::Stopped { name, position: folded.reached + 1, reason });
            }
            self.reached += page.len() as u64;
            (self.on_progress)(BuildProgress {
                events_done: self.reached,
                events_total: position,
                events_before: 0,
                elapsed: self.started.elapsed(),
            });
        }
        Ok(())
    }
}

fn key_of(row: &[Cell]) -> String {
    match row.first() {
        Some(Cell::Text(text)) => text.clone(),
        Some(Cell::Integer(number)) => number.to_string(),
        Some(Cell::Null) | None => String::new(),
    }
}

async fn compare(
    session: &mut dyn Session,
    table: &Table,
    rows: Vec<Vec<Cell>>,
    verdict: &mut Verdict,
) -> Result<(), Error> {
    let kinds: Vec<Kind> = table.all_columns().map(|column| column.kind).collect();
    let mut folded: HashMap<String, Vec<Cell>> =
        rows.into_iter().map(|row| (key_of(&row), row)).collect();
    let mut last: Option<Cell> = None;
    loop {
        let (after, mut cells) = match last.take() {
            Some(cell) => ("where id > $1", vec![cell]),
            None => ("", Vec::new()),
        };
        cells.push(Cell::Integer(BATCH));
        let sql = format!(
            "select {} from {} {after} order by id limit ${}",
            table.column_list(),
            table.name,
            cells.len()
        );
        let live = session.select(&sql, cells, &kinds).await?;
        if live.is_empty() {
            break;
        }
        last = live.last().and_then(|row| row.first()).cloned();
        for row in live {
            verdict.rows_compared += 1;
            let key = key_of(&row);
            let expected = folded.remove(&key);
            if expected.as_ref() != Some(&row) {
                verdict.note(table, key, Some(row), expected);
            }
        }
    }
    let mut missing: Vec<_> = folded.into_iter().collect();
    missing.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, row) in missing {
        verdict.rows_compared += 1;
        verdict.note(table, key, None, Some(row));
    }
    Ok(())
}

impl Verdict {
    fn note(
        &mut self,
        table: &Table,
        key: String,
        live: Option<Vec<Cell>>,
        folded: Option<Vec<Cell>>,
    ) {
        self.rows_different += 1;
        if self.differences.len() < SHOWN {
            let text = |row: Vec<Cell>| format!("{row:?}");
            self.differences.push(Difference {
                table: table.name.to_owned(),
                key,
                live: live.map(text),
                folded: folded.map(text),
            });
        }
    }
}
