//! Follows the log: pages in, rows and checkpoints out in one transaction that fails if anybody
//! else has moved a checkpoint, so that any number of runners lose nothing and count nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_eventstore::Page;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::backend::{Mark, Move, Session, Slot};
use crate::build::{Cause, Rebuilt, build, ignore_progress};
use crate::error::{Error, chain};
use crate::fold::{AnyFold, Folded};
use crate::pace::Pace;
use crate::pages::Pages;
use crate::status::{Known, State};
use crate::step::{fold, load, write};
use crate::views::Inner;

/// Rows kept in memory between pages, per projection; more are read again.
const KEPT: usize = 5_000;
/// How often the log is asked when nothing wakes the runner.
const POLL: Duration = Duration::from_secs(1);
/// The pause after a failure, doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The least time between the starts of two builds of one projection.
const BUILD_PAUSE: Duration = Duration::from_secs(2);

/// Keeps the read models up to date until it is stopped.
pub struct Runner {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Runner {
    pub(crate) fn start(inner: &Arc<Inner>) -> Self {
        let (stop, stopping) = watch::channel(false);
        inner.progress.send_modify(|progress| progress.following = true);
        Self { stop, task: tokio::spawn(supervise(Arc::clone(inner), stopping)) }
    }

    /// Finishes the page in hand and ends.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the runner of the read models did not end by itself");
        }
    }
}

/// Follows the log until it is told to stop; one that breaks off is told, and begins anew.
async fn supervise(inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    while !*stopping.borrow() {
        let follower = Follower {
            inner: Arc::clone(&inner),
            units: Vec::new(),
            stopping: stopping.clone(),
            built: Arc::default(),
        };
        if let Err(error) = tokio::spawn(follower.run()).await {
            tracing::error!(%error, "the runner of the read models broke off");
            inner.progress.send_modify(|progress| {
                progress.tell(Some("the runner broke off".to_owned()));
            });
            tokio::select! {
                _ = stopping.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
    inner.progress.send_modify(|progress| progress.following = false);
}

/// One projection as the runner holds it.
struct Unit {
    index: usize,
    mark: Mark,
    fold: Box<dyn AnyFold>,
    state: State,
    problem: Option<String>,
    /// Builds this version beside the live one.
    build: Option<JoinHandle<Result<Vec<Rebuilt>, Error>>>,
    /// A build that failed is not started again before this.
    build_after: Instant,
}

struct Follower {
    inner: Arc<Inner>,
    units: Vec<Unit>,
    stopping: watch::Receiver<bool>,
    /// A build has ended.
    built: Arc<Notify>,
}

impl Follower {
    async fn run(mut self) {
        let mut woken = self.inner.feed.watch();
        let mut pages = Pages::new(&self.inner.feed);
        let mut pause = PAUSE;
        while !*self.stopping.borrow() {
            woken.mark_unchanged();
            match self.turn(&mut pages).await {
                Ok(idle) => {
                    pause = PAUSE;
                    self.publish(None);
                    if !idle {
                        continue;
                    }
                    // Waiting only: a database call is never in a `select!`.
                    tokio::select! {
                        _ = self.stopping.changed() => {}
                        changed = woken.changed() => if changed.is_err() {
                            tokio::time::sleep(POLL).await;
                        },
                        () = self.built.notified() => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the read models make no progress");
                    self.publish(Some(chain(&error)));
                    pages = Pages::new(&self.inner.feed);
                    for unit in &mut self.units {
                        // A new one, since the old one may be lost on another thread.
                        unit.fold = self.inner.projections[unit.index].fold();
                    }
                    tokio::select! {
                        _ = self.stopping.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        for unit in &mut self.units {
            if let Some(build) = unit.build.take() {
                // Left half done, its tables are dropped by whoever builds next.
                build.abort();
            }
        }
    }

    /// One page, or nothing to do (true).
    async fn turn(&mut self, pages: &mut Pages) -> Result<bool, Error> {
        if self.units.is_empty() {
            self.adopt_all().await?;
        }
        self.finish_builds().await?;
        let running = self.units.iter().filter(|unit| unit.state == State::Running);
        let Some(after) = running.map(|unit| unit.mark.position).min() else {
            // Somebody with a newer program may have moved one on that stopped here.
            self.adopt_all().await?;
            return Ok(true);
        };
        let page = pages.poll(after).await?;
        if page.is_empty() {
            return Ok(true);
        }
        self.commit(Arc::new(page)).await?;
        Ok(false)
    }

    /// Rows and checkpoints of all running projections, in one transaction.
    async fn commit(&mut self, page: Arc<Page>) -> Result<(), Error> {
        let mut session = self.inner.backend.begin().await?;
        let marks = session.marks(Slot::Live, true).await?;
        if self.adopt(&marks) {
            // Another runner was here first: its rows stand, ours were never written.
            session.rollback().await?;
            return Ok(());
        }
        match self.apply(session.as_mut(), &page).await {
            Ok(results) => {
                session.commit().await?;
                for (unit, folded) in self.units.iter_mut().zip(results) {
                    let Some(folded) = folded else { continue };
                    unit.mark.position = folded.reached;
                    if let Some(reason) = folded.stopped {
                        let name = &unit.mark.name;
                        tracing::error!(projection = %name, position = folded.reached + 1, %reason,
                            "a projection stops: it cannot apply this event");
                        unit.state = State::Stopped;
                        unit.problem = Some(reason);
                        unit.fold.forget();
                    }
                    if unit.fold.size() > KEPT {
                        unit.fold.forget();
                    }
                }
                Ok(())
            }
            Err(error) => {
                if let Err(second) = session.rollback().await {
                    tracing::debug!(error = %second, "the rollback failed too; the connection is closed");
                }
                Err(error)
            }
        }
    }

    async fn apply(
        &mut self,
        session: &mut dyn Session,
        page: &Arc<Page>,
    ) -> Result<Vec<Option<Folded>>, Error> {
        let mut results = Vec::with_capacity(self.units.len());
        for unit in &mut self.units {
            if unit.state != State::Running {
                results.push(None);
                continue;
            }
            let projection = self.inner.projections[unit.index].as_ref();
            let after = unit.mark.position;
            let loaded =
                load(session, projection, Slot::Live, unit.fold.as_mut(), page, after).await;
            let folded = match loaded {
                Ok(()) => fold(&mut unit.fold, page, after, Pace::Beside).await?,
                // A row that this version cannot read is no better than an unknown event.
                Err(error @ Error::Row { .. }) => {
                    Folded { reached: after, stopped: Some(error.to_string()) }
                }
                Err(error) => return Err(error),
            };
            let mut changes = unit.fold.settle()?;
            // The live rows stand whatever a hand put there.
            changes.updates = changes.take_rows();
            write(session, projection, Slot::Live, changes).await?;
            results.push(Some(folded));
        }
        let moves: Vec<Move<'_>> = self
            .units
            .iter()
            .zip(&results)
            .filter_map(|(unit, folded)| {
                let Folded { reached, stopped } = folded.as_ref()?;
                Some(Move { mark: &unit.mark, to: *reached, problem: stopped.as_deref() })
            })
            .collect();
        if !session.advance(&moves).await? {
            let names: Vec<&str> = moves.iter().map(|moved| moved.mark.name.as_str()).collect();
            return Err(Error::Replaced { name: names.join(", ") });
        }
        Ok(results)
    }

    /// Takes over what the checkpoints say; true when one that runs is not where this runner left it.
    fn adopt(&mut self, marks: &[Mark]) -> bool {
        let incarnation = self.inner.feed.incarnation();
        let mut moved = false;
        for unit in &mut self.units {
            let Some(mark) = marks.iter().find(|mark| mark.name == unit.mark.name) else {
                continue;
            };
            let version = self.inner.projections[unit.index].version();
            let same = mark.generation == unit.mark.generation
                && mark.position == unit.mark.position
                && mark.version == unit.mark.version;
            if same {
                continue;
            }
            unit.fold.forget();
            unit.mark = mark.clone();
            let was = unit.state;
            unit.state = match (mark.version.cmp(&version), mark.incarnation == incarnation) {
                (std::cmp::Ordering::Greater, _) => State::Superseded,
                (std::cmp::Ordering::Less, _) | (_, false) => State::Building,
                // One that stopped here was moved on by a program that knew better.
                (std::cmp::Ordering::Equal, true) => State::Running,
            };
            unit.problem = None;
            moved |= was == State::Running || unit.state == State::Running;
        }
        moved
    }

    async fn adopt_all(&mut self) -> Result<(), Error> {
        let mut session = self.inner.backend.begin().await?;
        let marks = session.marks(Slot::Live, false).await?;
        session.rollback().await?;
        if self.units.is_empty() {
            let head = self.inner.feed.head().await?;
            for (index, projection) in self.inner.projections.iter().enumerate() {
                let found = marks.iter().find(|mark| mark.name == projection.name());
                let mark = found.ok_or_else(|| Error::NoSuchProjection {
                    name: projection.name().to_owned(),
                })?;
                // A row beyond the log is of another log, whatever its incarnation says.
                let foreign =
                    mark.incarnation != self.inner.feed.incarnation() || mark.position > head;
                let state = match mark.version.cmp(&projection.version()) {
                    std::cmp::Ordering::Greater => State::Superseded,
                    std::cmp::Ordering::Less => State::Building,
                    std::cmp::Ordering::Equal if foreign => State::Building,
                    std::cmp::Ordering::Equal => State::Running,
                };
                self.units.push(Unit {
                    index,
                    mark: mark.clone(),
                    fold: projection.fold(),
                    state,
                    problem: None,
                    build: None,
                    build_after: Instant::now(),
                });
            }
            self.publish(None);
        } else {
            self.adopt(&marks);
        }
        Ok(())
    }

    /// Starts the builds that are due, and takes over what they have finished.
    async fn finish_builds(&mut self) -> Result<(), Error> {
        let mut finished = false;
        for unit in &mut self.units {
            if unit.state != State::Building {
                continue;
            }
            match unit.build.take() {
                None if unit.build_after > Instant::now() => {}
                None => {
                    let inner = Arc::clone(&self.inner);
                    let index = unit.index;
                    unit.build_after = Instant::now() + BUILD_PAUSE;
                    let built = Arc::clone(&self.built);
                    unit.build = Some(tokio::spawn(async move {
                        let result = build(&inner, &[index], Cause::Due, &ignore_progress()).await;
                        // Keeps a permit when nobody waits just now.
                        built.notify_one();
                        result
                    }));
                }
                Some(task) if !task.is_finished() => unit.build = Some(task),
                Some(task) => match task.await {
                    Ok(Ok(_)) => finished = true,
                    // Another replica builds it: look again at the next turn.
                    Ok(Err(Error::Building { .. })) => finished = true,
                    Ok(Err(Error::Stopped { position, reason, .. })) => {
                        unit.state = State::Stopped;
                        unit.problem = Some(format!("event {position}: {reason}"));
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(projection = %unit.mark.name, error = %chain(&error),
                            "a build failed and is started again");
                        unit.problem = Some(chain(&error));
                    }
                    Err(_) => return Err(Error::Closed),
                },
            }
        }
        if finished {
            self.adopt_all().await?;
        }
        Ok(())
    }

    fn publish(&self, trouble: Option<String>) {
        let incarnation = self.inner.feed.incarnation();
        self.inner.progress.send_if_modified(|progress| {
            let before = progress.clone();
            progress.tell(trouble);
            for unit in &self.units {
                let known = Known {
                    position: unit.mark.position,
                    state: unit.state,
                    problem: unit.problem.clone(),
                    is_ours: unit.mark.incarnation == incarnation,
                };
                progress.projections.insert(unit.mark.name.clone(), known);
            }
            *progress != before
        });
    }
}
