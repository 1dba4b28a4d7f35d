//! Holds the live rows against a fold of the log, without keeping the rows that were folded.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_eventstore::{Page, Position, Recorded};

use super::judge::Findings;
use super::{Folding, HELD};
use crate::backend::{Mark, Session, Slot};
use crate::cell::{Cell, Kind, Table};
use crate::error::{Error, chain};
use crate::pages::PAGE;
use crate::views::Inner;

/// Live rows read at once.
const BATCH: i64 = 5_000;
/// How long rows that are behind may stand still before nothing is taken to bring them up any more.
const STILL: Duration = Duration::from_secs(2);

/// Stands for a row that was folded.
type Print = (u64, u64);

/// Tells rows apart by 128 bits that nobody can guess.
#[derive(Default)]
struct Printer(RandomState, RandomState);

impl Printer {
    fn of(&self, row: &[Cell]) -> Print {
        (self.0.hash_one(row), self.1.hash_one(row))
    }
}

/// One read model on its way.
struct One {
    folding: Folding,
    /// It is folded up to here; the live rows go at least as far.
    target: Position,
    prints: HashMap<String, Print>,
    rows: u64,
}

/// What came of a comparison.
pub(super) struct Compared {
    /// Those that were compared, each at its position.
    pub models: BTreeMap<&'static str, Position>,
    pub rows: u64,
    pub findings: Findings,
    /// What a server that follows the log would have put right.
    pub waiting: Findings,
}

/// All read models.
pub(super) struct Comparison {
    inner: Arc<Inner>,
    printer: Printer,
    each: Vec<One>,
    findings: Findings,
    waiting: Findings,
    /// Of the log when the comparison began: by its end, rows that are followed go as far.
    head: Position,
}

impl Comparison {
    /// Learns how far the live rows go; those that cannot be compared are found now.
    pub async fn begin(inner: &Arc<Inner>) -> Result<Self, Error> {
        let head = inner.feed.head().await?;
        let mut session = inner.backend.snapshot().await?;
        let marks = session.marks(Slot::Live, false).await?;
        session.rollback().await?;
        let (mut each, mut findings, mut waiting) =
            (Vec::new(), Findings::default(), Findings::default());
        for projection in &inner.projections {
            let name = projection.name();
            match comparable(mark_of(&marks, name), projection.version(), &inner.feed.incarnation())
            {
                Err(Other::Wrong(why)) => findings.note(None, name, why + NOT_COMPARED),
                Err(Other::Waits(why)) => waiting.note(None, name, why + NOT_COMPARED),
                Ok(mark) => each.push(One {
                    target: mark.position,
                    folding: Folding::of(projection.as_ref()),
                    prints: HashMap::new(),
                    rows: 0,
                }),
            }
        }
        let inner = Arc::clone(inner);
        Ok(Self { inner, printer: Printer::default(), each, findings, waiting, head })
    }

    /// Folds a page as far as the live rows go.
    pub async fn take(&mut self, page: &[Recorded]) -> Result<(), Error> {
        let page = Arc::new(page.iter().collect());
        for one in &mut self.each {
            one.fold(&page).await?;
            if one.folding.fold.size() > HELD {
                one.settle(&self.printer)?;
            }
        }
        Ok(())
    }

    /// Catches up with rows that were written meanwhile, and compares all of them in one state.
    pub async fn end(mut self) -> Result<Compared, Error> {
        let (mut session, marks) = self.caught_up().await?;
        let head = self.inner.feed.head().await?;
        let least = self.each.iter().map(|one| one.folding.reached).min().unwrap_or(0);
        let most = self.each.iter().map(|one| one.target).max().unwrap_or(0);
        let mut after = least;
        while after < most {
            let page = Arc::new(self.inner.feed.page(after, PAGE).await?);
            let Some(last) = page.last() else { break };
            after = last;
            for one in &mut self.each {
                one.fold(&page).await?;
            }
        }
        let (mut compared, mut rows) = (BTreeMap::new(), 0);
        let (mut findings, mut waiting) = (self.findings, self.waiting);
        for mut one in self.each {
            let name = one.folding.name;
            if let Some(why) = one.folding.stopped.take() {
                let at = Some(one.folding.reached + 1);
                findings.note(at, name, format!("the read model cannot be folded further: {why}"));
                continue;
            }
            if one.target > head {
                let problem = format!("its rows go up to {}, the log to {head}", one.target);
                findings.note(None, name, problem);
                continue;
            }
            let mark = mark_of(&marks, name);
            if mark.is_none_or(|mark| mark.position != one.target) {
                let problem = "its rows were replaced by older ones meanwhile; it was not compared";
                findings.note(None, name, problem);
                continue;
            }
            if let Some(problem) = mark.and_then(|mark| mark.problem.as_ref()) {
                findings.note(None, name, format!("it stopped at {}: {problem}", one.target));
            } else if one.target < self.head {
                let problem =
                    format!("it stands at {} of {} and goes no further", one.target, self.head);
                waiting.note(None, name, problem);
            }
            if let Err(error) = one.compare(session.as_mut(), &self.printer, &mut findings).await {
                findings.note(None, name, format!("its rows cannot be read: {}", chain(&error)));
                continue;
            }
            compared.insert(name, one.target);
            rows += one.rows;
        }
        session.rollback().await?;
        Ok(Compared { models: compared, rows, findings, waiting })
    }

    /// One state of all rows in which they go as far as the log did when the comparison began, and as
    /// what was folded since; or in which those that do not go so far stand still.
    async fn caught_up(&mut self) -> Result<(Box<dyn Session>, Vec<Mark>), Error> {
        let (mut moved, mut stood) = (Instant::now(), None);
        loop {
            let mut session = self.inner.backend.snapshot().await?;
            let marks = session.marks(Slot::Live, false).await?;
            let mut behind = BTreeMap::new();
            for one in &mut self.each {
                let name = one.folding.name;
                let mark = mark_of(&marks, name);
                let position = mark.map_or(0, |mark| mark.position);
                let is_stopped = mark.is_none_or(|mark| mark.problem.is_some());
                if position < one.target.max(self.head) && !is_stopped {
                    behind.insert(name, position);
                }
                one.target = position.max(one.target);
            }
            if stood.as_ref() != Some(&behind) {
                (moved, stood) = (Instant::now(), Some(behind.clone()));
            }
            if behind.is_empty() || moved.elapsed() > STILL {
                return Ok((session, marks));
            }
            session.rollback().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn mark_of<'m>(marks: &'m [Mark], name: &str) -> Option<&'m Mark> {
    marks.iter().find(|mark| mark.name == name)
}

/// Why rows cannot be held against a fold.
enum Other {
    /// They are nothing that this program makes.
    Wrong(String),
    /// A server that starts builds them anew.
    Waits(String),
}

const NOT_COMPARED: &str = "; it was not compared";

/// The mark, if rows under it can be held against a fold; else why not.
fn comparable<'m>(
    mark: Option<&'m Mark>,
    version: i32,
    incarnation: &str,
) -> Result<&'m Mark, Other> {
    let Some(mark) = mark else { return Err(Other::Waits(super::ABSENT.to_owned())) };
    if mark.version != version {
        let why = format!("its rows are of version {}, and not of {version}", mark.version);
        return Err(if mark.version < version { Other::Waits(why) } else { Other::Wrong(why) });
    }
    if mark.incarnation != incarnation {
        return Err(Other::Waits("its rows are of another life of the log".to_owned()));
    }
    Ok(mark)
}

impl One {
    /// Folds a page up to the target.
    async fn fold(&mut self, page: &Arc<Page>) -> Result<(), Error> {
        if page.last().is_none_or(|last| last <= self.target) {
            return self.folding.take(page).await;
        }
        let mut within = Page::clone(page);
        within.truncate(self.target);
        self.folding.take(&Arc::new(within)).await
    }

    /// Lets rows go that nothing will change, and keeps what stands for those that did change.
    fn settle(&mut self, printer: &Printer) -> Result<(), Error> {
        let mut changes = self.folding.fold.settle()?;
        for row in changes.take_rows() {
            self.prints.insert(key_of(&row), printer.of(&row));
        }
        for key in changes.deletes {
            self.prints.remove(&key);
        }
        Ok(())
    }

    /// Holds all rows against the live ones.
    async fn compare(
        &mut self,
        session: &mut dyn Session,
        printer: &Printer,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        self.settle(printer)?;
        let table = self.folding.table;
        let mut last: Option<Cell> = None;
        loop {
            let (filter, mut cells) = match last.take() {
                Some(cell) => ("id > $1", vec![cell]),
                None => ("id is not null", Vec::new()),
            };
            cells.push(BATCH.into());
            let (sql, kinds) = select(&table, filter, cells.len());
            let live = session.select(&sql, cells, &kinds).await?;
            last = live.last().and_then(|row| row.first()).cloned();
            if last.is_none() {
                break;
            }
            for row in live {
                self.rows += 1;
                let key = key_of(&row);
                match self.prints.remove(&key) {
                    Some(print) if print == printer.of(&row) => {}
                    Some(_) => note(findings, &table, &key, DIFFERS),
                    None => note(findings, &table, &key, EXTRA),
                }
            }
        }
        let mut missing: Vec<String> = self.prints.drain().map(|(key, _)| key).collect();
        missing.sort();
        for key in missing {
            self.rows += 1;
            note(findings, &table, &key, MISSING);
        }
        Ok(())
    }
}

const DIFFERS: &str = "the live row is not what the log says";
const EXTRA: &str = "there is a live row, and the log says that there is none";
const MISSING: &str = "there is no live row, and the log says that there is one";

fn note(findings: &mut Findings, table: &Table, key: &str, problem: &str) {
    findings.note(None, format!("{} {key}", table.name), problem);
}

/// Rows of a table in order of their keys; the limit is parameter `limit`.
fn select(table: &Table, filter: &str, limit: usize) -> (String, Vec<Kind>) {
    let (columns, name) = (table.column_list(), table.name);
    let kinds = table.all_columns().map(|column| column.kind).collect();
    (format!("select {columns} from {name} where {filter} order by id limit ${limit}"), kinds)
}

fn key_of(row: &[Cell]) -> String {
    match row.first() {
        Some(Cell::Text(text)) => text.clone(),
        Some(Cell::Integer(number)) => number.to_string(),
        Some(Cell::Null) | None => String::new(),
    }
}
