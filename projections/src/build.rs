//! Builds projections beside their live ones: the whole log folded in memory, large writes beside that,
//! and a switch in one transaction once the log's head is reached. Anything less is an error.
//!
//! Each write carries a checkpoint, so that what a killed process had built is gone on with.

mod pass;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proximity_eventstore::Position;
use serde::Serialize;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::backend::{Mark, Slot};
use crate::error::{Error, chain};
use crate::pace::{Pace, Turn};
use crate::pages::Pages;
use crate::unit::Unit;
use crate::views::Inner;

/// How far a rebuild or a verification is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BuildProgress {
    pub events_done: u64,
    pub events_total: u64,
    /// How many were done by a process that was killed.
    pub events_before: u64,
    pub elapsed: Duration,
}

impl BuildProgress {
    /// Events per second so far.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        let done = self.events_done.saturating_sub(self.events_before);
        // Both are far below 2^52, where a double is exact.
        if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
    }
}

/// Called after each page.
pub type OnProgress = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// For callers that do not care.
pub(crate) fn ignore_progress() -> OnProgress {
    Arc::new(|_| {})
}

/// How a rebuild is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// Begins at the first event even where a killed rebuild left something to go on with.
    pub anew: bool,
    /// Events after which what was built is kept; five seconds at most, whatever stands here.
    pub checkpoint: u64,
    /// Whether somebody serves meanwhile.
    pub pace: Pace,
}

impl Default for Rebuild {
    fn default() -> Self {
        Self { anew: false, checkpoint: 250_000, pace: Pace::Alone }
    }
}

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    pub name: String,
    pub version: i32,
    /// The position at which it was switched.
    pub position: Position,
    /// Where it went on; 0 when it began anew.
    pub from: Position,
}

/// How often a build says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After this long without a sign, a build counts as dead.
const DEAD: Duration = Duration::from_secs(10);
/// How often somebody who waits for a dead one looks.
const LOOK: Duration = Duration::from_millis(500);

/// Why builds are begun.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The live rows are of another version or another log; another process may have built them just
    /// now, which is as good.
    Due,
    Asked(Rebuild),
}

impl Cause {
    fn options(&self) -> Rebuild {
        match self {
            // This very process serves.
            Self::Due => Rebuild { pace: Pace::Beside, ..Rebuild::default() },
            Self::Asked(options) => options.clone(),
        }
    }
}

/// Says that builds are alive until it is dropped.
struct Pulse(JoinHandle<()>);

impl Pulse {
    fn of(inner: &Arc<Inner>, units: &[Unit]) -> Self {
        let marks: Vec<Mark> = units.iter().map(|unit| unit.mark.clone()).collect();
        let inner = Arc::clone(inner);
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                if let Err(error) = beat(&inner, &marks).await {
                    tracing::debug!(error = %chain(&error), "a build could not say that it is alive");
                }
            }
        }))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn beat(inner: &Inner, marks: &[Mark]) -> Result<(), Error> {
    let mut session = inner.backend.begin().await?;
    for mark in marks {
        session.touch(mark).await?;
    }
    session.commit().await
}

/// Builds these projections with one reading of the log.
pub(crate) async fn build(
    inner: &Arc<Inner>,
    chosen: &[usize],
    cause: Cause,
    on_progress: &OnProgress,
) -> Result<Vec<Rebuilt>, Error> {
    let units = begin(inner, chosen, &cause).await?;
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let pulse = Pulse::of(inner, &units);
    let from: HashMap<usize, Position> =
        units.iter().map(|unit| (unit.index, unit.reached)).collect();
    let options = cause.options();
    let turn = Turn::at(options.pace);
    let (mut units, mut built) = pass::run(inner, units, &options, &turn, on_progress).await;
    if built.is_ok() {
        // One transaction each: two switches in one could wait for a reader that waits for both.
        let finished = join_all(units.iter_mut().map(|unit| finish(inner, unit, &turn))).await;
        built = finished.into_iter().collect();
    }
    drop(pulse);
    if let Err(error) = built {
        for unit in &mut units {
            // What is on its way ends first; that it fails as well says nothing new.
            let _ended = unit.written().await;
            if let Err(second) = discard(inner, unit).await {
                tracing::warn!(projection = %unit.mark.name, error = %chain(&second), cause = %error,
                    "a failed build could not be cleared away; the next one will");
            }
        }
        return Err(error);
    }
    units.sort_by_key(|unit| chosen.iter().position(|index| *index == unit.index));
    let rebuilt = |unit: &Unit| Rebuilt {
        name: unit.mark.name.clone(),
        version: unit.mark.version,
        position: unit.reached,
        from: from.get(&unit.index).copied().unwrap_or_default(),
    };
    Ok(units.iter().map(rebuilt).collect())
}

/// Claims the builds; of one that seems dead, whoever asked waits until it surely is.
async fn begin(inner: &Inner, chosen: &[usize], cause: &Cause) -> Result<Vec<Unit>, Error> {
    let mut silent: HashMap<String, (Mark, u8)> = HashMap::new();
    loop {
        let other = match claim(inner, chosen, cause).await? {
            Claimed::All(units) => return Ok(units),
            Claimed::Taken(other) => other,
        };
        let (known, signs) = silent.entry(other.name.clone()).or_insert_with(|| (other.clone(), 0));
        if *known != other {
            *known = other.clone();
            *signs += 1;
        }
        // One sign may be the last statement of a process that was killed on its way.
        if *signs > 1 || matches!(cause, Cause::Due) {
            return Err(Error::Building { name: other.name });
        }
        tokio::time::sleep(LOOK).await;
    }
}

enum Claimed {
    All(Vec<Unit>),
    /// Another build is at work, or was a moment ago.
    Taken(Mark),
}

/// Makes the empty tables, or takes over what dead builds left; all of them or none.
async fn claim(inner: &Inner, chosen: &[usize], cause: &Cause) -> Result<Claimed, Error> {
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
            if matches!(cause, Cause::Due) && current && live.position <= head {
                continue;
            }
        }
        let generation = Uuid::new_v4().simple().to_string();
        let dead = session.mark(name, Slot::Next).await?;
        if let Some(other) = &dead {
            let silent = session.now().await? - other.updated_at;
            // Ahead of the clock: that was set back since, and the mark says nothing of the builder.
            let dead = i64::try_from(DEAD.as_micros()).unwrap_or(i64::MAX);
            if (-dead..dead).contains(&silent) {
                session.rollback().await?;
                return Ok(Claimed::Taken(other.clone()));
            }
        }
        let usable = dead.filter(|dead| {
            let same = dead.version == projection.version() && dead.incarnation == incarnation;
            same && dead.position > 0 && dead.position <= head && !cause.options().anew
        });
        match &usable {
            Some(dead) => {
                tracing::info!(
                    projection = name,
                    position = dead.position,
                    "a build is gone on with"
                );
                session.take_over(dead, &generation).await?;
            }
            None => {
                session.drop_tables(projection, Slot::Next).await?;
                session.create_table(projection, Slot::Next).await?;
                session.plant(projection, Slot::Next, &generation, &incarnation).await?;
            }
        }
        let mark = session.mark(name, Slot::Next).await?;
        let mark = mark.ok_or_else(|| Error::Replaced { name: name.to_owned() })?;
        units.push(Unit::at(index, mark, projection, cause.options().pace));
    }
    session.commit().await?;
    Ok(Claimed::All(units))
}

/// The rest of the rows, the indexes and the switch, in one transaction.
async fn finish(inner: &Arc<Inner>, unit: &mut Unit, turn: &Turn) -> Result<(), Error> {
    let projection = unit.projection(inner);
    let rest = unit.rest().await?;
    let writing = turn.take().await;
    let mut session = inner.backend.begin().await?;
    let core = turn.pace.core().await?;
    unit.write(inner, session.as_mut(), rest).await?;
    session.create_indexes(projection, Slot::Next, &unit.mark.generation).await?;
    // What follows waits for the disk more than it works, so the next one may begin.
    drop((core, writing));
    // From here on the live one waits, so the long part is done before.
    let live = session.mark(projection.name(), Slot::Live).await?;
    let same_log = live.as_ref().is_some_and(|live| live.incarnation == unit.mark.incarnation);
    let head = inner.feed.head().await?;
    let live = live.map_or(0, |live| live.position);
    // Rows that were live must not go back in time; a live one beyond the head is of another log.
    let to = if same_log && live <= head { live } else { 0 };
    let mut pages = Pages::new(&inner.feed);
    while unit.reached < to {
        let page = Arc::new(pages.next(unit.reached, to).await?);
        unit.take(inner, Some(session.as_mut()), &page).await?;
    }
    unit.store(inner, session.as_mut()).await?;
    session.switch(projection).await?;
    session.commit().await?;
    unit.fold.forget();
    Ok(())
}

/// Removes the tables of a build that failed, if they are still this one's.
async fn discard(inner: &Inner, unit: &Unit) -> Result<(), Error> {
    let projection = unit.projection(inner);
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    let next = session.mark(projection.name(), Slot::Next).await?;
    if next.is_some_and(|next| next.generation == unit.mark.generation) {
        session.drop_generation(projection, Slot::Next).await?;
    }
    session.commit().await
}
