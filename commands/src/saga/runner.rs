//! Finds operations that want to be driven: wakes when the log moves, sweeps by a timer, and trusts
//! neither for anything but the hint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use proximity_domain::OperationId;
use proximity_domain::operation::Event;
use proximity_domain::plan::Plan;
use proximity_eventstore::{Position, Recorded};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drive::{Driven, drive};
use super::quarantine::Quarantine;
use super::work::{Env, Hold};
use crate::actor::Actor;
use crate::host_usage;
use crate::restored::Restoration;

/// Events read at a time.
const PAGE: usize = 2_000;

/// Carries operations out, until it is stopped.
pub struct Runner {
    env: Env,
    stopping: CancellationToken,
    tracker: TaskTracker,
    permits: Arc<Semaphore>,
    busy: Arc<Mutex<BTreeMap<OperationId, State>>>,
    done: Arc<Notify>,
    /// Operations that have neither ended nor are stuck, as far as the log has been read.
    open: BTreeSet<OperationId>,
    /// Operations on what is left of an application, until they are known to keep their host.
    detached: BTreeMap<OperationId, Plan>,
    quarantine: Quarantine,
    /// After a restoration from a backup, nothing is done before a person says so.
    restoration: Restoration,
    cursor: Position,
}

/// Why an operation is not to be driven right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Driven,
    /// Not before this moment: another runner has it, or the store was away.
    Later(Instant),
}

/// Stops a runner.
pub struct RunnerHandle {
    stopping: CancellationToken,
    tracker: TaskTracker,
}

impl RunnerHandle {
    /// Ends each operation's work at its next recorded step, gives the claims up, and returns.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tracker.wait().await;
    }
}

/// The plan of an operation on what is left of an application.
fn detached(planned: &Recorded) -> Option<Plan> {
    // Few are, and all of the log is read at a start.
    if !planned.payload.contains("\"detached\":true") {
        return None;
    }
    match serde_json::from_str(&planned.payload) {
        Ok(Event::Planned { plan, .. }) if plan.is_detached() => Some(plan),
        _ => None,
    }
}

impl Runner {
    /// Starts it in the background.
    pub fn start(env: Env) -> RunnerHandle {
        let (stopping, tracker) = (CancellationToken::new(), TaskTracker::new());
        let runner = Self {
            permits: Arc::new(Semaphore::new(env.config.concurrency)),
            stopping: stopping.clone(),
            tracker: tracker.clone(),
            busy: Arc::default(),
            done: Arc::new(Notify::new()),
            open: BTreeSet::new(),
            detached: BTreeMap::new(),
            quarantine: Quarantine::default(),
            restoration: Restoration::new(env.store.clone()),
            cursor: 0,
            env,
        };
        tracker.spawn(runner.run());
        tracker.close();
        RunnerHandle { stopping, tracker }
    }

    async fn run(mut self) {
        let mut head = self.env.store.watch_head();
        while !self.stopping.is_cancelled() {
            self.read().await;
            self.keep_hosts().await;
            if self.restoration.may_act().await {
                self.drive_open();
                self.quarantine.sweep(&self.env, &self.stopping).await;
            }
            tokio::select! {
                () = self.stopping.cancelled() => {}
                () = self.done.notified() => {}
                () = tokio::time::sleep(self.env.config.sweep) => {}
                changed = head.changed() => if changed.is_err() {
                    // The store is closed: nothing moves any more until someone stops this.
                    self.stopping.cancelled().await;
                },
            }
        }
    }

    /// Follows the log; a failure is tried again at the next wake-up.
    async fn read(&mut self) {
        loop {
            let page = match self.env.store.feed(self.cursor, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be read");
                    return;
                }
            };
            let Some(last) = page.last() else { return };
            let (end, full) = (last.position, page.len() == PAGE);
            for event in &page {
                self.quarantine.follow(event);
                if event.aggregate_type != "operation" {
                    continue;
                }
                let Ok(id) = event.aggregate_id.parse::<OperationId>() else { continue };
                match event.event_type.as_str() {
                    "operation.planned" => {
                        if let Some(plan) = detached(event) {
                            self.detached.insert(id, plan);
                        }
                    }
                    "operation.completed" | "operation.undone" | "operation.abandoned" => {
                        self.detached.remove(&id);
                    }
                    _ => {}
                }
                match event.event_type.as_str() {
                    "operation.planned" | "operation.resumed" => {
                        self.open.insert(id);
                    }
                    "operation.completed"
                    | "operation.undone"
                    | "operation.abandoned"
                    | "operation.stuck" => {
                        self.open.remove(&id);
                    }
                    _ => {}
                }
            }
            self.cursor = end;
            if !full {
                return;
            }
        }
    }

    /// Operations that no application keeps the host for keep it themselves, also those that wait for an
    /// operator: an older version planned them without.
    async fn keep_hosts(&mut self) {
        for (id, plan) in std::mem::take(&mut self.detached) {
            let meta = Actor::system("operations").metadata("host.keep").correlated(id);
            if let Err(error) = host_usage::keep(&self.env.store, id, &plan, meta).await {
                tracing::warn!(operation = %id, %error, "its host is not kept yet");
                self.detached.insert(id, plan);
            }
        }
    }

    /// Starts on as many open operations as may run at once, the oldest first.
    fn drive_open(&self) {
        let now = Instant::now();
        for id in &self.open {
            match self.busy.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
                Some(State::Driven) => continue,
                Some(State::Later(moment)) if *moment > now => continue,
                _ => {}
            }
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
            self.set(*id, Some(State::Driven));
            let (env, stopping, id) = (self.env.clone(), self.stopping.clone(), *id);
            let (busy, done) = (self.busy.clone(), self.done.clone());
            self.tracker.spawn(async move {
                let driven = match Hold::take(&env, id).await {
                    Ok(Some(hold)) => drive(&env, hold, &stopping).await,
                    Ok(None) => Driven::Left,
                    Err(error) => {
                        tracing::warn!(operation = %id, ?error, "an operation cannot be claimed");
                        Driven::Left
                    }
                };
                let state = match driven {
                    // A moment for the log to be read up to its end.
                    Driven::Rests => None,
                    Driven::Left => Some(State::Later(Instant::now() + env.config.sweep)),
                    Driven::Died => Some(State::Driven),
                };
                let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
                match state {
                    Some(state) => busy.insert(id, state),
                    None => busy.remove(&id),
                };
                drop(permit);
                done.notify_one();
            });
        }
    }

    fn set(&self, id: OperationId, state: Option<State>) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Some(state) => busy.insert(id, state),
            None => busy.remove(&id),
        };
    }
}
