//! Builds projections beside their live ones: the whole log folded in memory, few large writes,
//! and a switch in one transaction once the log's head is reached. Anything less is an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proximity_eventstore::{Position, Recorded};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::backend::{Mark, Session, Slot};
use crate::error::{Error, chain};
use crate::fold::{AnyFold, Changes};
use crate::pages::Pages;
use crate::step::{changes, fold, load, write};
use crate::views::Inner;

/// How far a rebuild or a verification is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BuildProgress {
    pub events_done: u64,
    pub events_total: u64,
    pub elapsed: Duration,
}

impl BuildProgress {
    /// Events per second so far.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        // Both are far below 2^52, where a double is exact.
        if seconds > 0.0 { self.events_done as f64 / seconds } else { 0.0 }
    }
}

/// Called after each page.
pub type OnProgress = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// For callers that do not care.
pub(crate) fn ignore_progress() -> OnProgress {
    Arc::new(|_| {})
}

/// Rows and lines held in memory before they are written.
const HELD: usize = 200_000;
/// How often a build says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After this long without a sign, a build counts as dead.
const DEAD: Duration = Duration::from_secs(30);

/// Lines of a journal that are written at once while the next pages are folded.
const LINES: usize = 10_000;

struct Unit {
    index: usize,
    mark: Mark,
    fold: Box<dyn AnyFold>,
    /// Lines of its journal on their way to the table.
    writing: Option<JoinHandle<Result<(), Error>>>,
}

impl Unit {
    /// Waits for the lines that are on their way.
    async fn written(&mut self) -> Result<(), Error> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(|_| Error::Closed)?,
            None => Ok(()),
        }
    }
}

/// Builds these projections with one reading of the log; when `due` is set, only those whose live
/// rows are of another version or another log, since another process may have built them just now.
pub(crate) async fn build(
    inner: &Arc<Inner>,
    chosen: &[usize],
    due: bool,
    on_progress: &OnProgress,
) -> Result<(), Error> {
    let mut units = begin(inner, chosen, due).await?;
    if units.is_empty() {
        return Ok(());
    }
    let built = run(inner, &mut units, on_progress).await;
    if let Err(error) = &built {
        for unit in &units {
            if let Err(second) = discard(inner, unit).await {
                tracing::warn!(projection = %unit.mark.name, error = %chain(&second), cause = %error,
                    "a failed build could not be cleared away; the next one will");
            }
        }
    }
    built
}

/// Claims the builds and makes their empty tables.
async fn begin(inner: &Inner, chosen: &[usize], due: bool) -> Result<Vec<Unit>, Error> {
    let incarnation = inner.feed.incarnation();
    let head = inner.feed.head().await?;
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    let mut units = Vec::new();
    for index in chosen.iter().copied() {
        let projection = inner.projections[index].as_ref();
        let name = projection.name();
        if let Some(live) = session.mark(name, Slot::Live).await? {
            if live.version > projection.version() {
                return Err(Error::Superseded { name: name.to_owned() });
            }
            let current = live.version == projection.version() && live.incarnation == incarnation;
            if due && current && live.position <= head {
                continue;
            }
        }
        if let Some(other) = session.mark(name, Slot::Next).await? {
            let silent = session.now().await? - other.updated_at;
            if i128::from(silent) < i128::try_from(DEAD.as_micros()).unwrap_or(i128::MAX) {
                return Err(Error::Building { name: name.to_owned() });
            }
        }
        let generation = Uuid::new_v4().simple().to_string();
        session.drop_tables(projection, Slot::Next).await?;
        session.create_tables(projection, Slot::Next).await?;
        session.plant(projection, Slot::Next, &generation, &incarnation).await?;
        let mark = session.mark(name, Slot::Next).await?;
        let mark = mark.ok_or_else(|| Error::Replaced { name: name.to_owned() })?;
        units.push(Unit { index, mark, fold: projection.fold(), writing: None });
    }
    session.commit().await?;
    Ok(units)
}

async fn run(
    inner: &Arc<Inner>,
    units: &mut [Unit],
    on_progress: &OnProgress,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut pages = Pages::new(&inner.feed);
    let mut reached: Position = 0;
    let mut heartbeat = Instant::now();
    loop {
        let head = inner.feed.head().await?;
        while reached < head {
            let page = Arc::new(pages.next(reached, head).await?);
            // Side by side: each folds on a thread of its own.
            let takes = units.iter_mut().map(|unit| take(inner, None, unit, &page, reached));
            all(takes).await?;
            reached += page.len() as u64;
            for unit in units.iter_mut() {
                write_lines(inner, unit).await?;
            }
            let elapsed = started.elapsed();
            on_progress(BuildProgress { events_done: reached, events_total: head, elapsed });
            let full = units.iter().any(|unit| unit.fold.size() > HELD);
            if full || heartbeat.elapsed() > HEARTBEAT {
                for unit in units.iter_mut() {
                    flush(inner, unit, reached, full).await?;
                }
                heartbeat = Instant::now();
            }
        }
        if inner.feed.head().await? <= head {
            break;
        }
    }
    // One transaction each: two switches in one could wait for a reader that waits for both.
    all(units.iter_mut().map(|unit| finish(inner, unit, reached))).await
}

/// Waits for every one, so that none is dropped in the middle of a statement; then the first error.
async fn all(
    each: impl Iterator<Item = impl Future<Output = Result<(), Error>>>,
) -> Result<(), Error> {
    join_all(each).await.into_iter().collect()
}

/// Folds a page into one projection.
async fn take(
    inner: &Inner,
    session: Option<&mut dyn Session>,
    unit: &mut Unit,
    page: &Arc<Vec<Recorded>>,
    after: Position,
) -> Result<(), Error> {
    let projection = inner.projections[unit.index].as_ref();
    match session {
        Some(session) => {
            load(session, projection, Slot::Next, unit.fold.as_mut(), page, after).await?;
        }
        None => {
            if !unit.fold.missing(page, after).is_empty() {
                let mut session = inner.backend.begin().await?;
                let fold = unit.fold.as_mut();
                load(session.as_mut(), projection, Slot::Next, fold, page, after).await?;
                session.rollback().await?;
            }
        }
    }
    let folded = fold(&mut unit.fold, page, after).await?;
    match folded.stopped {
        None => Ok(()),
        Some(reason) => Err(Error::Stopped {
            name: unit.mark.name.clone(),
            position: folded.reached + 1,
            reason,
        }),
    }
}

/// Sends a journal's lines off to its table once they are many, which nothing folded later changes.
async fn write_lines(inner: &Arc<Inner>, unit: &mut Unit) -> Result<(), Error> {
    let Some(journal) = unit.fold.lines(LINES) else { return Ok(()) };
    unit.written().await?;
    let (inner, mark, index) = (Arc::clone(inner), unit.mark.clone(), unit.index);
    unit.writing = Some(tokio::spawn(async move {
        let mut session = inner.backend.begin().await?;
        let changes = Changes { journal, ..Changes::default() };
        let projection = inner.projections[index].as_ref();
        write(session.as_mut(), projection, Slot::Next, changes, true).await?;
        // The table may be another build's by now; then nothing of this is kept.
        if !session.advance(&mark, mark.position, None).await? {
            return Err(Error::Replaced { name: mark.name });
        }
        session.commit().await
    }));
    Ok(())
}

/// Writes what is in memory when it is much; else only says that the build lives.
async fn flush(inner: &Inner, unit: &mut Unit, reached: Position, full: bool) -> Result<(), Error> {
    let to = if full { reached } else { unit.mark.position };
    unit.written().await?;
    let held = if full { changes(&mut unit.fold).await? } else { Changes::default() };
    let mut session = inner.backend.begin().await?;
    let projection = inner.projections[unit.index].as_ref();
    let fresh = unit.mark.position == 0;
    write(session.as_mut(), projection, Slot::Next, held, fresh).await?;
    if !session.advance(&unit.mark, to, None).await? {
        return Err(Error::Replaced { name: unit.mark.name.clone() });
    }
    session.commit().await?;
    unit.mark.position = to;
    if full {
        unit.fold.forget();
    }
    Ok(())
}

/// The rest of the rows, the indexes and the switch, in one transaction.
async fn finish(inner: &Arc<Inner>, unit: &mut Unit, mut reached: Position) -> Result<(), Error> {
    let projection = inner.projections[unit.index].as_ref();
    let name = projection.name();
    let most = changes(&mut unit.fold).await?;
    unit.written().await?;
    let mut session = inner.backend.begin().await?;
    let fresh = unit.mark.position == 0;
    write(session.as_mut(), projection, Slot::Next, most, fresh).await?;
    session.create_indexes(projection, Slot::Next, &unit.mark.generation).await?;
    // From here on the live one waits, so the long part is done before.
    let live = session.mark(name, Slot::Live).await?;
    let same_log = live.as_ref().is_some_and(|live| live.incarnation == unit.mark.incarnation);
    let head = inner.feed.head().await?;
    let live = live.map_or(0, |live| live.position);
    // Rows that were live must not go back in time; a live one beyond the head is of another log.
    let to = if same_log && live <= head { live } else { 0 };
    let mut pages = Pages::new(&inner.feed);
    while reached < to {
        let page = Arc::new(pages.next(reached, to).await?);
        take(inner, Some(session.as_mut()), unit, &page, reached).await?;
        reached += page.len() as u64;
    }
    let rest = changes(&mut unit.fold).await?;
    write(session.as_mut(), projection, Slot::Next, rest, false).await?;
    if !session.advance(&unit.mark, reached, None).await? {
        return Err(Error::Replaced { name: name.to_owned() });
    }
    session.switch(projection).await?;
    session.commit().await?;
    unit.fold.forget();
    Ok(())
}

/// Removes the tables of a build that failed, if they are still this one's.
async fn discard(inner: &Inner, unit: &Unit) -> Result<(), Error> {
    let projection = inner.projections[unit.index].as_ref();
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    let next = session.mark(projection.name(), Slot::Next).await?;
    if next.is_some_and(|next| next.generation == unit.mark.generation) {
        session.drop_tables(projection, Slot::Next).await?;
        session.uproot(projection.name(), Slot::Next).await?;
    }
    session.commit().await
}
