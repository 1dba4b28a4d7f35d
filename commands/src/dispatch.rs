//! A unit of work: load what a decision rests on, judge commands, append all of it or nothing.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cqrs_es::{Aggregate, DomainEvent};
use proximity_domain::UserId;
use proximity_domain::application::Application;
use proximity_domain::backup::Backup;
use proximity_domain::backup_run::BackupRun;
use proximity_domain::backup_schedule::BackupSchedule;
use proximity_domain::host::Host;
use proximity_domain::keys::Keys;
use proximity_domain::lease::Lease;
use proximity_domain::log::Log;
use proximity_domain::operation::Operation;
use proximity_domain::settings::Settings;
use proximity_domain::user::{ApiToken, Session, User};
use proximity_eventstore::{
    Append, AppendError, Assertion, Expected, Fence, Idempotency, Lane, NewEvent, Outcome,
    Position, SideWrite, Store, StreamAppend,
};
use rand::Rng as _;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::actor::{Metadata, Proof};
use crate::error::Error;
use crate::once;
use crate::preview::Draft;
use crate::seen::{Changed, not_overtaken};

/// How often a decision is made anew after another append won one of its streams.
const RETRIES: u32 = 5;

/// An aggregate whose decisions are plain functions.
pub trait Judge: Aggregate + Clone + 'static {
    /// The events that follow from the command, or why it is refused.
    fn judge(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Error>;
}

macro_rules! judge {
    ($($aggregate:ty),*) => {
        $(impl Judge for $aggregate {
            fn judge(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Error> {
                self.decide(command)
            }
        })*
    };
}
judge!(ApiToken, Application, Backup, BackupRun, BackupSchedule, Host, Lease, Operation, Session);
judge!(Keys, Log, Settings, User);

/// Why a command was not judged well: by the aggregate, or because it could not be asked.
#[derive(Debug)]
pub enum Refused<E> {
    Judged(E),
    Failed(Error),
}

impl<E> Refused<E> {
    /// Turns the aggregate's refusal into the crate's error.
    pub fn or_else(self, translate: impl FnOnce(E) -> Error) -> Error {
        match self {
            Self::Judged(error) => translate(error),
            Self::Failed(error) => error,
        }
    }
}

/// Why an attempt at a unit of work ended: stale ones are worth another attempt.
#[derive(Debug)]
pub enum Tried {
    Stale(AppendError),
    Failed(Error),
}

impl From<Error> for Tried {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AppendError> for Tried {
    fn from(error: AppendError) -> Self {
        if error.is_stale() { Self::Stale(error) } else { Self::Failed(error.into()) }
    }
}

/// What became of a unit of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Up to here the log holds all of it.
    pub position: Position,
    /// The answer kept under the idempotency key, when it had been used before.
    pub replayed: Option<Option<String>>,
}

/// Lets a test answer an append as a database in trouble would.
pub trait AppendFaults: Send + Sync {
    /// An error instead of storing it.
    fn before(&self, _append: &Append) -> Option<AppendError> {
        None
    }
    /// An error although it was stored.
    fn after(&self, _append: &Append) -> Option<AppendError> {
        None
    }
}

struct Stream {
    sequence: u64,
    events: Vec<NewEvent>,
    state: Box<dyn Any + Send>,
}

/// Collects the decisions of one command. Streams that it loads and does not change become read
/// assertions, so that the decision holds for exactly what it has seen.
pub struct Unit<'s> {
    store: &'s Store,
    streams: BTreeMap<(&'static str, String), Stream>,
    side: Vec<SideWrite>,
    metadata: Metadata,
    lane: Lane,
    fence: Option<Fence>,
    idempotency: Option<Idempotency>,
    faults: Option<Arc<dyn AppendFaults>>,
    /// Held until it is stored or dropped.
    turn: Option<OwnedMutexGuard<()>>,
}

impl<'s> Unit<'s> {
    /// For a caller's command, in the caller's turn.
    pub fn new(store: &'s Store, metadata: Metadata) -> Self {
        let lane = Lane::User(metadata.actor.lane());
        Self {
            store,
            streams: BTreeMap::new(),
            side: Vec::new(),
            metadata,
            lane,
            fence: None,
            idempotency: None,
            faults: None,
            turn: None,
        }
    }

    /// For what a runner has found out under its claim; served before callers.
    pub fn outcome(store: &'s Store, metadata: Metadata, fence: Option<Fence>) -> Self {
        Self { lane: Lane::Outcome, fence, ..Self::new(store, metadata) }
    }

    /// Keeps a turn until this unit has ended, whatever becomes of it.
    pub(crate) fn hold(&mut self, turn: Option<OwnedMutexGuard<()>>) {
        self.turn = turn;
    }

    /// Lets a test's faults strike this unit's append.
    #[must_use]
    pub fn with_faults(self, faults: Option<Arc<dyn AppendFaults>>) -> Self {
        Self { faults, ..self }
    }

    /// The aggregate as it stands, this unit's own decisions included.
    pub async fn load<A: Judge>(&mut self, id: &str) -> Result<A, Error> {
        let key = (A::TYPE, id.to_owned());
        if let Some(state) = self.streams.get(&key).and_then(|s| s.state.downcast_ref::<A>()) {
            return Ok(state.clone());
        }
        let (state, sequence) = load::<A>(self.store, id).await?;
        let stream = Stream { sequence, events: Vec::new(), state: Box::new(state.clone()) };
        self.streams.insert(key, stream);
        Ok(state)
    }

    /// Sequence of the last event of a stream that this unit has loaded, its own decisions left out.
    pub(crate) fn sequence<A: Judge>(&self, id: &str) -> Option<u64> {
        self.streams.get(&(A::TYPE, id.to_owned())).map(|stream| stream.sequence)
    }

    /// Judges a command; its events become part of this unit. Returns how many there are.
    pub async fn apply<A: Judge>(
        &mut self,
        id: &str,
        command: A::Command,
    ) -> Result<usize, Refused<A::Error>> {
        let mut state = self.load::<A>(id).await.map_err(Refused::Failed)?;
        let events = state.judge(command).map_err(Refused::Judged)?;
        let count = events.len();
        let mut new = Vec::with_capacity(count);
        for event in events {
            let payload = serde_json::to_string(&event)
                .map_err(|e| Refused::Failed(Error::internal("an event cannot be written", e)))?;
            new.push(NewEvent {
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload,
            });
            state.apply(event);
        }
        if let Some(stream) = self.streams.get_mut(&(A::TYPE, id.to_owned())) {
            stream.events.append(&mut new);
            stream.state = Box::new(state);
        }
        Ok(count)
    }

    /// Says whose thing it is about, once that is known; an admin or a schedule acts on that user's
    /// behalf.
    pub fn owned_by(&mut self, owner: UserId) {
        self.metadata = self.metadata.clone().about(owner);
    }

    /// What stands beside events of this stream, if it is the application of somebody else than the
    /// rest is about: to its owner, whatever happens to it has to be there.
    fn own_metadata(&self, stream: &Stream) -> Option<String> {
        let owner = stream.state.downcast_ref::<Application>()?.live()?.requested.owner;
        let is_others = self.metadata.owner.is_some_and(|other| other != owner);
        is_others.then(|| self.metadata.clone().about(owner).to_json())
    }

    /// Says that it was done by the user whom it is about, up to now nobody, and what showed it.
    pub fn proved(&mut self, user: UserId, by: Proof) {
        self.metadata = self.metadata.clone().proved(user, by);
    }

    /// Says which endeavour it belongs to, once that is known.
    pub fn correlate(&mut self, id: impl ToString) {
        self.metadata.correlation = Some(id.to_string());
    }

    /// Says what it follows from.
    pub fn caused_by(&mut self, cause: impl ToString) {
        self.metadata.causation = Some(cause.to_string());
    }

    /// A row to be written in the same transaction.
    pub fn write(&mut self, write: SideWrite) {
        self.side.push(write);
    }

    /// Makes this the one effect of a key.
    pub fn idempotent(&mut self, idempotency: Option<Idempotency>) {
        self.idempotency = idempotency;
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.side.is_empty() && self.streams.values().all(|stream| stream.events.is_empty())
    }

    /// Refuses what was only to be looked at, and what is not the plan that was agreed on.
    fn is_meant(&self) -> Result<(), AppendError> {
        let actor = &self.metadata.actor;
        if actor.preview.is_none() && actor.agreed.is_none() {
            return Ok(());
        }
        let draft = Draft::of(self.streams.iter().map(|((kind, id), stream)| {
            (*kind, id.as_str(), stream.sequence, stream.events.as_slice())
        }));
        if let Some(preview) = &actor.preview {
            preview.leave(draft);
            return Err(AppendError::DryRun);
        }
        match &actor.agreed {
            Some(agreed) if !agreed.is(&draft) => Err(AppendError::PlanChanged),
            _ => Ok(()),
        }
    }

    /// What it changes; only where the caller said what it has seen.
    fn compared(&self) -> Option<(Position, Vec<Changed>)> {
        let seen = self.metadata.actor.seen.get()?;
        let changed = self.streams.iter().filter(|(_, stream)| !stream.events.is_empty());
        Some((seen, changed.map(|((kind, id), s)| (*kind, id.clone(), s.sequence)).collect()))
    }

    /// Stores all of it. An outcome that cannot be learnt is asked for again under the same id.
    ///
    /// In a dry run nothing is stored, and the events are left with the caller.
    pub async fn commit(mut self) -> Result<Committed, AppendError> {
        self.is_meant()?;
        if let Some((seen, changed)) = self.compared() {
            not_overtaken(self.store, seen, changed).await?;
        }
        let id = Uuid::now_v7();
        if self.metadata.correlation.is_none() && self.metadata.actor.request.is_none() {
            // Nothing else belongs to it, which is worth knowing too.
            self.metadata.correlation = Some(id.to_string());
        }
        let mut streams = Vec::new();
        let mut assertions = Vec::new();
        for ((aggregate_type, aggregate_id), stream) in std::mem::take(&mut self.streams) {
            if stream.events.is_empty() {
                assertions.push(Assertion {
                    aggregate_type: aggregate_type.to_owned(),
                    aggregate_id,
                    sequence: stream.sequence,
                });
            } else {
                streams.push(StreamAppend {
                    metadata: self.own_metadata(&stream),
                    aggregate_type: aggregate_type.to_owned(),
                    aggregate_id,
                    expected: Expected::At(stream.sequence),
                    events: stream.events,
                });
            }
        }
        let seen = self.metadata.actor.seen.clone();
        let told = self.metadata.actor.told.clone();
        let key = self.metadata.actor.once.clone();
        let chosen = self.idempotency.is_some();
        // A decision that changes no stream is no effect: the note that nothing was changed takes the key.
        let has_events = !streams.is_empty();
        let key = key.filter(|_| has_events || assertions.is_empty());
        let marked = key.as_ref().and_then(|once| once.mark(&self.metadata.actor));
        let append = Append {
            id,
            lane: self.lane,
            streams,
            assertions,
            side: self.side,
            metadata: self.metadata.to_json(),
            fence: self.fence,
            idempotency: self.idempotency.or(marked),
        };
        let faults = self.faults.as_deref();
        let _turn = self.turn;
        let mut answer = submit(self.store, faults, &append).await;
        for _ in 0..RETRIES {
            if !matches!(answer, Err(AppendError::Unknown)) {
                break;
            }
            answer = submit(self.store, faults, &append).await;
        }
        match answer? {
            Outcome::Stored(appended) => {
                seen.clear();
                if has_events {
                    told.set();
                }
                if let Some(once) = key {
                    once.take();
                }
                Ok(Committed { position: appended.last, replayed: None })
            }
            Outcome::Replayed { answer, .. } if once::is_refusal(answer.as_deref()) => {
                Err(AppendError::KeyRefused)
            }
            Outcome::Replayed { position, answer } if chosen => {
                Ok(Committed { position, replayed: Some(answer) })
            }
            // Another request of the same key was faster. What this one decided did not happen.
            Outcome::Replayed { .. } => Err(AppendError::KeyUsed),
        }
    }
}

async fn submit(
    store: &Store,
    faults: Option<&dyn AppendFaults>,
    append: &Append,
) -> Result<Outcome, AppendError> {
    if let Some(error) = faults.and_then(|faults| faults.before(append)) {
        return Err(error);
    }
    let answer = store.append(append.clone()).await;
    match faults.and_then(|faults| faults.after(append)) {
        Some(error) => Err(error),
        None => answer,
    }
}

/// Folds one stream; returns the state and the sequence of its last event.
pub async fn load<A: Aggregate>(store: &Store, id: &str) -> Result<(A, u64), Error> {
    let events = store
        .load::<A>(id)
        .await
        .map_err(|error| Error::internal("a stream cannot be loaded", error))?;
    let mut state = A::default();
    let mut sequence = 0;
    for event in events {
        sequence = event.sequence as u64;
        let event = serde_json::from_value(event.payload)
            .map_err(|error| Error::internal("a stored event cannot be read", error))?;
        state.apply(event);
    }
    Ok((state, sequence))
}

/// Counts the attempts at a unit of work: a stale one is decided anew, five times at most, after a
/// random pause that grows.
#[derive(Debug, Default)]
pub struct Retries {
    made: u32,
}

impl Retries {
    /// Returns when another attempt may be made, and with the error when none is left or none helps.
    pub async fn again(&mut self, tried: Tried) -> Result<(), Error> {
        match tried {
            Tried::Failed(error) => Err(error),
            Tried::Stale(error) if self.made >= RETRIES => Err(error.into()),
            Tried::Stale(_) => {
                self.made += 1;
                let wait = rand::rng().random_range(0..4_u64 << self.made);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Ok(())
            }
        }
    }
}
