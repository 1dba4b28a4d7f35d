//! The live stream: every event that a reader may see, once and in order, from where it left off.
//!
//! A task of its own reads the log and hands text over through a short queue. A reader that does not
//! take it in time is cut off and comes back with the last id that it saw; nothing is buffered for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proximity_commands::clock::Micros;
use proximity_commands::{Actor, Secret};
use proximity_domain::UserId;
use proximity_eventstore::{Position, Recorded};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::events;
use super::peer::Peer;
use super::problem::{Problem, chain};
use crate::app::App;

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader may let its queue stand full.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether the reader is still there, and still may read.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long a reader whose stream has ended may take for what is on its way to it.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at whether it has taken it.
const PAUSE: Duration = Duration::from_millis(50);
/// Messages that wait for a reader at most.
const QUEUE: usize = 64;
/// Events read at once.
const PAGE: usize = 500;
/// Streams that one user may have open.
const MOST_OF_ONE: usize = 16;
/// Streams that a server has open.
const MOST: usize = 2_000;

/// Counts the streams that are open.
#[derive(Default)]
pub struct Streams(Mutex<HashMap<UserId, usize>>);

/// One open stream; dropping it counts it out.
pub(super) struct Place {
    app: Arc<App>,
    user: UserId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.app.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

impl Streams {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    pub(super) fn enter(app: &Arc<App>, user: UserId) -> Result<Place, Problem> {
        let mut open = app.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.entry(user).or_insert(0);
        if all >= MOST || *own >= MOST_OF_ONE {
            let mut problem =
                Problem::new("stream.too_many", "too many streams are open; close one first");
            problem.retry_after = Some(HEARTBEAT.as_secs());
            return Err(problem);
        }
        *own += 1;
        Ok(Place { app: app.clone(), user })
    }
}

/// Why a stream ends; the reader comes back when it wants to.
enum End {
    /// The reader is gone.
    Gone,
    /// The reader takes nothing.
    Slow,
    /// The session is over, or the account disabled.
    Identity,
    /// The log cannot be read; it is logged already.
    Store,
    /// The server stops.
    Stopping,
}

/// Who reads, by what was shown to prove it.
pub struct Credential {
    pub actor: Actor,
    pub token: Secret,
    pub peer: Peer,
}

impl Credential {
    /// Who it is now, and until when at most; `None` when it is good no more.
    pub(super) async fn now(&self, app: &Arc<App>) -> Option<(Actor, Micros)> {
        let request = self.actor.request.clone().unwrap_or_default();
        // A look-up that fails ends the stream as well: nobody reads on without being known.
        app.authenticate(self.token.clone(), self.actor.source, &request).await.ok().flatten()
    }
}

/// A reader's way through the log.
struct Reader {
    place: Place,
    who: Credential,
    /// When that was looked up last.
    looked: Option<Instant>,
    /// When it ends by itself.
    until: Micros,
    /// Everything up to here was sent, or is not the reader's to see.
    position: Position,
    queue: Sender<Option<Bytes>>,
}

/// Opens a stream of what comes after a position; `None` is its end.
pub fn open(
    app: &Arc<App>,
    who: Credential,
    position: Position,
) -> Result<Receiver<Option<Bytes>>, Problem> {
    let user = who.actor.user();
    let user = user.ok_or_else(|| Problem::from(proximity_commands::Error::Unauthenticated))?;
    let place = Streams::enter(app, user)?;
    let (queue, receiver) = mpsc::channel(QUEUE);
    let (peer, out) = (who.peer.clone(), queue.clone());
    let reader = Reader { place, who, looked: None, until: Micros::MAX, position, queue };
    app.spawn(async move {
        let Err(end) = reader.run().await;
        let why = match end {
            End::Gone => "its reader is gone",
            End::Slow => "its reader takes nothing",
            End::Identity => "its session is over",
            End::Store => "the log cannot be read",
            End::Stopping => "the server stops",
        };
        tracing::debug!(%user, why, "a live stream ended");
        let is_over = match end {
            End::Gone => true,
            End::Slow => false,
            _ => timeout(GRACE, taken(&out, &peer)).await.is_ok(),
        };
        if !is_over {
            // Nobody else would: the connection would be kept for a client that takes nothing.
            peer.hang_up();
        }
    });
    Ok(receiver)
}

/// Ends the answer, and waits until the reader has taken all of it.
async fn taken(queue: &Sender<Option<Bytes>>, peer: &Peer) {
    if queue.send(None).await.is_err() {
        return;
    }
    queue.closed().await;
    // The connection of a stream ends with it, unless it carries others, too.
    while peer.is_alone && !peer.is_gone() {
        sleep(PAUSE).await;
    }
}

impl Reader {
    async fn run(mut self) -> Result<std::convert::Infallible, End> {
        let app = self.place.app.clone();
        let mut head = app.store.watch_head();
        let [mut beats, mut looks] = [HEARTBEAT, LOOK].map(interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            head.mark_unchanged();
            self.catch_up(&app).await?;
            loop {
                // No database call is inside: whatever wins, nothing is dropped midway.
                tokio::select! {
                    () = app.stopping.cancelled() => return Err(End::Stopping),
                    () = self.queue.closed() => return Err(End::Gone),
                    changed = head.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Err(End::Stopping),
                    },
                    _ = looks.tick() => self.check(&app)?,
                    _ = beats.tick() => {
                        self.beat(&app).await?;
                        break;
                    }
                }
            }
        }
    }

    /// Sends what the log holds beyond the position.
    async fn catch_up(&mut self, app: &Arc<App>) -> Result<(), End> {
        let mut is_behind = false;
        loop {
            if is_behind || self.is_stale() {
                self.look(app).await?;
            }
            let page = app.store.feed(self.position, PAGE).await.map_err(|error| {
                tracing::error!(error = chain(&error), "a live stream cannot read the log");
                End::Store
            })?;
            if page.is_empty() {
                return Ok(());
            }
            is_behind = true;
            for event in page {
                if app.stopping.is_cancelled() {
                    return Err(End::Stopping);
                }
                // First, since who reads may change while there is none.
                self.room(app).await?;
                if events::is_about_identity(&event) || self.is_stale() {
                    self.look(app).await?;
                }
                self.in_time(app)?;
                self.position = event.position;
                if events::is_visible(&event, &self.who.actor) {
                    self.send(self.message(&event))?;
                }
            }
        }
    }

    /// A sign of life that carries the position, so that coming back reads nothing twice.
    async fn beat(&mut self, app: &Arc<App>) -> Result<(), End> {
        self.room(app).await?;
        self.look(app).await?;
        self.send(format!("id: {}\n: alive\n\n", app.lives.id(self.position)))
    }

    /// Whether it is time to ask again who reads.
    fn is_stale(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK)
    }

    /// Asks who reads: what the reader was allowed when it came may have been taken away since, also by
    /// events that it is still far from.
    async fn look(&mut self, app: &Arc<App>) -> Result<(), End> {
        (self.who.actor, self.until) = self.who.now(app).await.ok_or(End::Identity)?;
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// What is known without asking: that the reader is gone, or its time over.
    fn check(&self, app: &App) -> Result<(), End> {
        self.in_time(app)?;
        if self.who.peer.is_gone() { Err(End::Gone) } else { Ok(()) }
    }

    fn in_time(&self, app: &App) -> Result<(), End> {
        if app.commands.clock.now() < self.until { Ok(()) } else { Err(End::Identity) }
    }

    /// Waits until the queue takes one more message.
    async fn room(&mut self, app: &Arc<App>) -> Result<(), End> {
        let began = Instant::now();
        loop {
            tokio::select! {
                free = timeout(LOOK, self.queue.reserve()) => match free {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(_)) => return Err(End::Gone),
                    Err(_) if began.elapsed() >= PATIENCE => return Err(End::Slow),
                    Err(_) => {}
                },
                () = app.stopping.cancelled() => return Err(End::Stopping),
            }
            self.look(app).await?;
            self.check(app)?;
        }
    }

    /// Into the queue, which has room: nobody else sends into it.
    fn send(&self, text: String) -> Result<(), End> {
        self.queue.try_send(Some(text.into())).map_err(|_| End::Gone)
    }

    fn message(&self, event: &Recorded) -> String {
        let shown = events::Shown::to(event, &self.who.actor);
        let data = serde_json::to_string(&shown).unwrap_or_default();
        format!("id: {}\ndata: {data}\n\n", self.place.app.lives.id(event.position))
    }
}
