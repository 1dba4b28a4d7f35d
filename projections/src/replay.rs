//! The whole log read once: the state as it was at a moment, what is wrong with the log, and which
//! live rows are not what it says.
//!
//! Held in memory is what lives at the moment that was reached: rows that nothing will change any more
//! are let go, and of those that have to be compared only a fingerprint is kept.

mod between;
mod compare;
mod judge;
mod law;
mod said;

pub use judge::{Finding, Findings};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use proximity_eventstore::{Page, Position, Recorded};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::build::{BuildProgress, OnProgress};
use crate::cell::Table;
use crate::error::Error;
use crate::feed::Feed;
use crate::fold::AnyFold;
use crate::pace::Pace;
use crate::pages::PAGE;
use crate::projection::AnyProjection;
use crate::views::{Views, standard};
use compare::{Compared, Comparison};
use judge::Judge;

/// Rows held in a fold before those that will not change are let go.
const HELD: usize = 10_000;

/// Up to where the log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Its end.
    Head,
    /// The last event at or before this position.
    Position(Position),
}

/// The state at a moment.
#[derive(Debug, Default, Serialize)]
pub struct State {
    /// The last event that counts.
    pub position: Position,
    /// µs since 1970 of that event.
    pub recorded_at: i64,
    /// By read model, each row as the API shows it: what lived then.
    pub rows: BTreeMap<&'static str, Vec<Value>>,
    /// What kept a read model from being folded.
    pub stopped: BTreeMap<&'static str, String>,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many events were judged; the last one's position.
    pub events: u64,
    /// Rows of read models that were held against the log.
    pub rows_compared: u64,
    /// Read models that were compared, each at its position; empty when an older moment was checked. One
    /// that could not be compared is a finding.
    pub compared: BTreeMap<&'static str, Position>,
    /// What is wrong; nothing when `total` is 0.
    pub findings: Findings,
    /// Read models that are absent, behind and not moving, or of an earlier version or life of the log:
    /// the next start of a server brings them up. Where one runs, it should have.
    pub waiting: Findings,
}

impl Report {
    /// A server follows the log: what should have moved and did not is wrong.
    pub fn followed(&mut self) {
        self.findings.append(std::mem::take(&mut self.waiting));
    }
}

/// A page on its way, after a position.
type Ahead = (Position, JoinHandle<Result<Vec<Recorded>, Error>>);

/// A log read page by page up to a moment, the next page on its way; unlike [`crate::pages::Pages`] it
/// goes on over a gap, which is what is looked for.
struct Reading {
    feed: Arc<dyn Feed>,
    ahead: Option<Ahead>,
    until: Until,
    head: Position,
    after: Position,
    /// The last event's time, when events that were stored at one moment are to stay together: they
    /// are whole appends, and only those can be judged.
    whole: Option<Option<i64>>,
    ended: bool,
    done: u64,
    started: Instant,
    on_progress: OnProgress,
}

impl Reading {
    async fn begin(
        feed: &Arc<dyn Feed>,
        until: Until,
        whole_appends: bool,
        on_progress: OnProgress,
    ) -> Result<Self, Error> {
        Ok(Self {
            ahead: None,
            until,
            head: feed.head().await?,
            feed: Arc::clone(feed),
            after: 0,
            whole: whole_appends.then_some(None),
            ended: false,
            done: 0,
            started: Instant::now(),
            on_progress,
        })
    }

    /// The next page; `None` at the end.
    async fn next(&mut self) -> Result<Option<Arc<Vec<Recorded>>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut page = match self.ahead.take() {
            Some((position, page)) if position == self.after => {
                page.await.map_err(|_| Error::Closed)??
            }
            _ => self.feed.events(self.after, PAGE).await?,
        };
        let full = page.len() == PAGE;
        if let Some(last) = page.last().map(|last| last.position).filter(|_| full) {
            let feed = Arc::clone(&self.feed);
            self.ahead = Some((last, tokio::spawn(async move { feed.events(last, PAGE).await })));
        }
        let end = page.iter().position(|event| self.ends_before(event));
        page.truncate(end.unwrap_or(page.len()));
        self.ended = end.is_some() || !full;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = last.position;
        self.done += page.len() as u64;
        let total = match self.until {
            Until::Position(position) => position.min(self.head),
            Until::Head => self.head,
        };
        (self.on_progress)(BuildProgress {
            events_done: self.done,
            events_total: total.max(self.done),
            events_before: 0,
            elapsed: self.started.elapsed(),
        });
        Ok(Some(Arc::new(page)))
    }

    fn ends_before(&mut self, event: &Recorded) -> bool {
        let beyond = match self.until {
            Until::Head => event.position > self.head,
            Until::Position(position) => event.position > position,
        };
        if let Some(last) = &mut self.whole {
            if !beyond {
                *last = Some(event.recorded_at);
            }
            // What goes on at the same moment is the rest of the last append, or of its batch.
            return beyond && *last != Some(event.recorded_at);
        }
        beyond
    }
}

/// One read model that is folded along.
struct Folding {
    name: &'static str,
    table: Table,
    fold: Box<dyn AnyFold>,
    reached: Position,
    stopped: Option<String>,
}

impl Folding {
    fn of(projection: &dyn AnyProjection) -> Self {
        Self {
            name: projection.name(),
            table: projection.table(),
            fold: projection.fold(),
            reached: 0,
            stopped: None,
        }
    }

    /// Folds a page; one that stops stays where it is.
    async fn take(&mut self, page: &Arc<Page>) -> Result<(), Error> {
        if self.stopped.is_some() {
            return Ok(());
        }
        // Nothing was ever written: what is not in memory has ended or never was.
        let absent = self.fold.missing(page, self.reached);
        self.fold.admit(absent, Vec::new())?;
        let folded = crate::step::fold(&mut self.fold, page, self.reached, Pace::Beside).await?;
        (self.reached, self.stopped) = (folded.reached, folded.stopped);
        Ok(())
    }
}

/// The state at a moment, of the product's read models.
pub async fn state(
    feed: Arc<dyn Feed>,
    until: Until,
    on_progress: OnProgress,
) -> Result<State, Error> {
    let mut state = State::default();
    let mut foldings: Vec<Folding> =
        standard().iter().map(|one| Folding::of(one.as_ref())).collect();
    let mut reading = Reading::begin(&feed, until, false, on_progress).await?;
    while let Some(page) = reading.next().await? {
        let folded: Arc<Page> = Arc::new(page.iter().collect());
        for folding in &mut foldings {
            folding.take(&folded).await?;
            if folding.fold.size() > HELD {
                drop(folding.fold.settle()?);
            }
        }
        if let Some(last) = page.last() {
            (state.position, state.recorded_at) = (last.position, last.recorded_at);
        }
    }
    for folding in &mut foldings {
        drop(folding.fold.settle()?);
        let name = folding.name;
        let mut rows = folding.fold.held()?;
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        state.rows.insert(name, rows.into_iter().map(|(_, row)| row).collect());
        if let Some(why) = folding.stopped.take() {
            state.stopped.insert(name, why);
        }
    }
    state.join();
    Ok(state)
}

impl State {
    /// Says of each application how far its operation is, as an answer of the API does.
    fn join(&mut self) {
        let said = |row: &Value| {
            let fields = ["id", "kind", "step", "attempt"].map(|name| (name, row[name].clone()));
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let operations = self.rows.get("operations").into_iter().flatten();
        let operations: BTreeMap<String, Value> = operations
            .filter_map(|row| Some((row["id"].as_str()?.to_owned(), Value::Object(said(row)))))
            .collect();
        for app in self.rows.get_mut("applications").into_iter().flatten() {
            if let Some(id) = app["operation"].as_str() {
                app["operation"] = operations.get(id).cloned().unwrap_or_default();
            }
        }
    }
}

/// What is said of a read model that is not there.
const ABSENT: &str = "there is no such read model yet";

/// The read models that there should be, none of which is there, as what waits for a server.
pub fn absent() -> Findings {
    let mut waiting = Findings::default();
    for projection in standard() {
        waiting.note(None, projection.name(), format!("{ABSENT}; it was not compared"));
    }
    waiting
}

/// Judges the log up to a moment, without read models.
pub async fn judge(
    feed: Arc<dyn Feed>,
    until: Until,
    on_progress: OnProgress,
) -> Result<Report, Error> {
    let mut judge = Judge::default();
    let mut reading = Reading::begin(&feed, until, true, on_progress).await?;
    while let Some(page) = reading.next().await? {
        judge = judged(judge, page).await?;
    }
    judge.close();
    Ok(Report {
        events: reading.done,
        rows_compared: 0,
        compared: BTreeMap::new(),
        findings: judge.findings,
        waiting: Findings::default(),
    })
}

/// Judges a page off the async threads.
async fn judged(mut judge: Judge, page: Arc<Vec<Recorded>>) -> Result<Judge, Error> {
    let judging = tokio::task::spawn_blocking(move || {
        for event in page.iter() {
            judge.take(event);
        }
        judge
    });
    judging.await.map_err(|_| Error::Closed)
}

impl Views {
    /// Judges the whole log and holds the live rows against it, in one reading.
    pub async fn check(&self, on_progress: OnProgress) -> Result<Report, Error> {
        let views = self.clone();
        let task = tokio::spawn(async move { check(&views, on_progress).await });
        task.await.map_err(|_| Error::Closed)?
    }
}

async fn check(views: &Views, on_progress: OnProgress) -> Result<Report, Error> {
    let inner = &views.inner;
    let mut judge = Judge::default();
    let mut comparison = Comparison::begin(inner).await?;
    let mut reading = Reading::begin(&inner.feed, Until::Head, true, on_progress).await?;
    while let Some(page) = reading.next().await? {
        let (rest, judging) =
            tokio::join!(comparison.take(&page), judged(judge, Arc::clone(&page)));
        rest?;
        judge = judging?;
    }
    judge.close();
    let mut findings = judge.findings;
    let Compared { models, rows, findings: differences, waiting } = comparison.end().await?;
    findings.append(differences);
    Ok(Report { events: reading.done, rows_compared: rows, compared: models, findings, waiting })
}

/// A row as the API shows it, of its body: what only the fold needs is left out.
pub(crate) fn shown(table: &str, body: Value) -> Value {
    let part = match table {
        "applications" => "app",
        "operations" => "operation",
        "backups" => "backup",
        "backup_schedules" => "schedule",
        "hosts" => "host",
        _ => return body,
    };
    match body {
        Value::Object(mut fields) if fields.contains_key(part) => {
            let mut row = fields.remove(part).unwrap_or_default();
            if table == "applications" {
                // Which one it is; how far it is stands in a row of its own.
                row["operation"] = fields.remove("operation").unwrap_or_default();
            }
            row
        }
        other => other,
    }
}
