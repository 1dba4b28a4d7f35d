//! One pass over the log for several projections, each at its own pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use proximity_eventstore::{Page, Position};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{BuildProgress, OnProgress, Rebuild};
use crate::error::Error;
use crate::pace::{Pace, Turn};
use crate::pages::Pages;
use crate::unit::Unit;
use crate::views::Inner;

/// How long a build goes on without a checkpoint.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Pages that a projection may be behind the reading.
const AHEAD: usize = 2;

/// Reads the log once for all of them, up to its head; each folds and writes in a task of its own.
pub(super) async fn run(
    inner: &Arc<Inner>,
    units: Vec<Unit>,
    options: &Rebuild,
    turn: &Turn,
    on_progress: &OnProgress,
) -> (Vec<Unit>, Result<(), Error>) {
    let events_before = units.iter().map(|unit| unit.reached).min().unwrap_or_default();
    let reached = units.iter().map(|unit| Arc::new(AtomicU64::new(unit.reached))).collect();
    let (last, started) = (AtomicU64::new(events_before), Instant::now());
    let told = Told { reached, events_before, last, on_progress, started };
    let mut senders = Vec::new();
    // They end with whoever waits for them.
    let mut tasks = JoinSet::new();
    for (unit, reached) in units.into_iter().zip(&told.reached) {
        let (sender, pages) = mpsc::channel(AHEAD);
        let (inner, turn, reached) = (Arc::clone(inner), turn.clone(), Arc::clone(reached));
        senders.push(sender);
        tasks.spawn(follow(inner, unit, pages, options.checkpoint, turn, reached));
    }
    let mut result = read(inner, senders, turn.pace, &told).await;
    let mut units = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let Ok((unit, followed)) = task else {
            result = Err(Error::Closed);
            continue;
        };
        units.push(unit);
        // Why one ended says more than that nobody took its pages any more.
        if followed.is_err() {
            result = followed;
        }
    }
    if result.is_ok() {
        told.tell(told.least());
    }
    (units, result)
}

/// What is told of how far the slowest one is.
struct Told<'a> {
    reached: Vec<Arc<AtomicU64>>,
    events_before: u64,
    last: AtomicU64,
    on_progress: &'a OnProgress,
    started: Instant,
}

impl Told<'_> {
    fn least(&self) -> Position {
        self.reached.iter().map(|one| one.load(Relaxed)).min().unwrap_or_default()
    }

    /// Says how far they are, if they got on since it was said last.
    fn tell(&self, events_total: u64) {
        let (events_done, elapsed) = (self.least(), self.started.elapsed());
        if self.last.swap(events_done, Relaxed) == events_done {
            return;
        }
        let events_before = self.events_before;
        (self.on_progress)(BuildProgress { events_done, events_total, events_before, elapsed });
    }
}

/// Hands the log on page by page until it is read to its head, or somebody takes no more.
async fn read(
    inner: &Inner,
    senders: Vec<mpsc::Sender<Arc<Page>>>,
    pace: Pace,
    told: &Told<'_>,
) -> Result<(), Error> {
    let mut pages = Pages::paced(&inner.feed, pace);
    let mut read = told.events_before;
    loop {
        let head = inner.feed.head().await?;
        while read < head {
            let page = Arc::new(pages.next(read, head).await?);
            read += page.len() as u64;
            for sender in &senders {
                sender.send(Arc::clone(&page)).await.map_err(|_| Error::Closed)?;
            }
            told.tell(head);
        }
        if inner.feed.head().await? <= head {
            break;
        }
    }
    Ok(())
}

/// Folds the pages into one projection's rows, and sends those off as they become many.
async fn follow(
    inner: Arc<Inner>,
    mut unit: Unit,
    mut pages: mpsc::Receiver<Arc<Page>>,
    checkpoint: u64,
    turn: Turn,
    reached: Arc<AtomicU64>,
) -> (Unit, Result<(), Error>) {
    let mut kept = (unit.reached, Instant::now());
    while let Some(page) = pages.recv().await {
        let due = unit.reached - kept.0 >= checkpoint || kept.1.elapsed() > CHECKPOINT;
        let taken = async {
            unit.take(&inner, None, &page).await?;
            if due || unit.is_due() { unit.send(&inner, &turn).await } else { Ok(()) }
        };
        if let Err(error) = taken.await {
            return (unit, Err(error));
        }
        if due {
            kept = (unit.reached, Instant::now());
        }
        reached.store(unit.reached, Relaxed);
    }
    (unit, Ok(()))
}
