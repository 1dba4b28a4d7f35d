//! The live stream: every event that a reader may see, once and in order, from where it left off.
//!
//! A task of its own reads the log and hands text over through a short queue. A reader that does not
//! take it in time is cut off and comes back with the last id that it saw; nothing is buffered for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proximity_commands::{Actor, Secret};
use proximity_domain::UserId;
use proximity_eventstore::{Position, Recorded};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::events;
use super::problem::{Problem, chain};
use crate::app::App;

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader may let its queue stand full.
const PATIENCE: Duration = Duration::from_secs(30);
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
    /// The reader is gone, or too slow.
    Reader,
    /// The session is over, or the account disabled.
    Identity,
    /// The log cannot be read; it is logged already.
    Store,
    /// The server stops.
    Stopping,
}

/// A reader's way through the log.
struct Reader {
    place: Place,
    actor: Actor,
    token: Secret,
    /// Everything up to here was sent, or is not the reader's to see.
    position: Position,
    queue: Sender<Bytes>,
}

/// Opens a stream of what comes after a position.
pub fn open(
    app: &Arc<App>,
    actor: Actor,
    token: Secret,
    position: Position,
) -> Result<Receiver<Bytes>, Problem> {
    let user =
        actor.user().ok_or_else(|| Problem::from(proximity_commands::Error::Unauthenticated))?;
    let place = Streams::enter(app, user)?;
    let (queue, receiver) = mpsc::channel(QUEUE);
    let reader = Reader { place, actor, token, position, queue };
    app.spawn(async move {
        let why = match reader.run().await {
            End::Reader => "its reader is gone or too slow",
            End::Identity => "its session is over",
            End::Store => "the log cannot be read",
            End::Stopping => "the server stops",
        };
        tracing::debug!(%user, why, "a live stream ended");
    });
    Ok(receiver)
}

impl Reader {
    async fn run(mut self) -> End {
        let app = self.place.app.clone();
        let mut head = app.store.watch_head();
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            head.mark_unchanged();
            if let Err(end) = self.catch_up(&app).await {
                return end;
            }
            // No database call is inside: whatever wins, nothing is dropped midway.
            let beat = tokio::select! {
                () = app.stopping.cancelled() => return End::Stopping,
                () = self.queue.closed() => return End::Reader,
                changed = head.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return End::Stopping,
                },
                _ = beats.tick() => true,
            };
            if beat && let Err(end) = self.beat(&app).await {
                return end;
            }
        }
    }

    /// Sends what the log holds beyond the position.
    async fn catch_up(&mut self, app: &Arc<App>) -> Result<(), End> {
        loop {
            let page = app.store.feed(self.position, PAGE).await.map_err(|error| {
                tracing::error!(error = chain(&error), "a live stream cannot read the log");
                End::Store
            })?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                if app.stopping.is_cancelled() {
                    return Err(End::Stopping);
                }
                if events::is_about_identity(&event) {
                    self.identify(app).await?;
                }
                self.position = event.position;
                if events::is_visible(&event, &self.actor) {
                    self.send(message(&event, &self.actor)).await?;
                }
            }
        }
    }

    /// A sign of life that carries the position, so that coming back reads nothing twice.
    async fn beat(&self, app: &Arc<App>) -> Result<(), End> {
        let mut this = Self::identity(app, &self.token, &self.actor).await;
        match this.take() {
            None => Err(End::Identity),
            Some(_) => self.send(format!("id: {}\n: alive\n\n", self.position)).await,
        }
    }

    /// Who reads may have changed with the event that comes next.
    async fn identify(&mut self, app: &Arc<App>) -> Result<(), End> {
        self.actor = Self::identity(app, &self.token, &self.actor).await.ok_or(End::Identity)?;
        Ok(())
    }

    async fn identity(app: &Arc<App>, token: &Secret, actor: &Actor) -> Option<Actor> {
        let request = actor.request.clone().unwrap_or_default();
        // A look-up that fails ends the stream as well: nobody reads on without being known.
        app.authenticate(token.clone(), actor.source, &request).await.ok().flatten()
    }

    async fn send(&self, text: String) -> Result<(), End> {
        tokio::select! {
            sent = timeout(PATIENCE, self.queue.send(text.into())) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(End::Reader),
            },
            () = self.place.app.stopping.cancelled() => Err(End::Stopping),
        }
    }
}

fn message(event: &Recorded, reader: &Actor) -> String {
    let data = serde_json::to_string(&events::Shown::to(event, reader)).unwrap_or_default();
    format!("id: {}\ndata: {data}\n\n", event.position)
}
