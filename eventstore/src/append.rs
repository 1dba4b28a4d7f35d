//! What a caller hands to the writer, and what comes back: rows in, positions or a typed refusal out.

use std::time::Duration;

use uuid::Uuid;

use crate::side::SideWrite;

/// A place in the log: dense, starting at 1. 0 means "before the first event".
pub type Position = u64;

/// One event, already serialised: the store never looks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Stable name such as `application.requested`.
    pub event_type: String,
    /// Version of the event's shape, e.g. `1`.
    pub event_version: String,
    /// JSON text, stored byte for byte.
    pub payload: String,
}

/// Where a stream must stand for an append to it to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The last stored sequence is exactly this (0: the stream does not exist).
    At(u64),
    /// Wherever it stands: only for streams without invariants, such as audit streams of refusals.
    Any,
}

/// The events for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAppend {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub expected: Expected,
    pub events: Vec<NewEvent>,
    /// JSON object text stored with these events instead of the append's: for a stream that is another's.
    pub metadata: Option<String>,
}

impl StreamAppend {
    /// What is stored beside each of its events.
    pub fn metadata_in<'a>(&'a self, append: &'a Append) -> &'a str {
        self.metadata.as_deref().unwrap_or(&append.metadata)
    }
}

/// A stream that is only read by the decision: it must still stand at `sequence` (0: must not exist).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: u64,
}

/// Whose append it is; the writer serves operations' outcomes first, then users in fair turns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The outcome of something that already happened outside.
    Outcome,
    /// A caller's command; the text tells callers apart for fairness (a user id, say).
    User(String),
}

/// The claim under which a runner appends; stale means another runner has taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// What is claimed, e.g. an operation's id.
    pub claim: String,
    pub epoch: u64,
}

/// Makes the append the one effect of this key; the answer is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub actor: String,
    /// The route and the client's key, joined by the caller.
    pub key: String,
    /// Keyed fingerprint of the request body.
    pub fingerprint: String,
    /// The answer to give again, as JSON text; `None` when it showed a one-time secret.
    pub answer: Option<String>,
}

/// All or nothing: events for any number of streams, what they rest on, and rows beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// Resubmitting the same id can never apply it twice.
    pub id: Uuid,
    pub lane: Lane,
    pub streams: Vec<StreamAppend>,
    pub assertions: Vec<Assertion>,
    pub side: Vec<SideWrite>,
    /// JSON object text stored with each event.
    pub metadata: String,
    pub fence: Option<Fence>,
    pub idempotency: Option<Idempotency>,
}

/// Where the events of an accepted append stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of its first event (the head at that moment if it has none).
    pub first: Position,
    /// Position of its last event (as `first` if it has none).
    pub last: Position,
}

/// How an accepted append came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now (or found stored under the same `id` when resubmitted).
    Stored(Appended),
    /// The idempotency key had been used with the same fingerprint: the first answer, nothing stored.
    Replayed { position: Position, answer: Option<String> },
}

/// Why an append was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another append won the stream; reload and decide again.
    #[error("stream {aggregate_type}/{aggregate_id} is at {actual}, not at {expected}")]
    Conflict { aggregate_type: String, aggregate_id: String, expected: u64, actual: u64 },
    /// A stream that the decision rested on has moved.
    #[error(
        "assertion on {aggregate_type}/{aggregate_id} failed: it is at {actual}, not at {expected}"
    )]
    AssertionFailed { aggregate_type: String, aggregate_id: String, expected: u64, actual: u64 },
    /// A unique constraint of a side table (by its name), e.g. `users_username_key`.
    #[error("side row violates {constraint}")]
    SideConflict { constraint: String },
    /// A guarded side write did not find the rows that it counted on.
    #[error("side row of {table} is not as expected")]
    SideStale { table: &'static str },
    /// The runner's claim is no longer the latest one.
    #[error("claim {claim} is stale")]
    Fenced { claim: String },
    /// The idempotency key was used with another request.
    #[error("idempotency key was used with another request")]
    KeyReused,
    /// The key's one effect has happened before, and its answer is kept elsewhere: given by callers
    /// that keep answers themselves, never by the writer.
    #[error("the request of this idempotency key was carried out before")]
    KeyUsed,
    /// Another try of this idempotency key was refused meanwhile, and was told that nothing happens
    /// under it: given by callers that keep refusals, never by the writer.
    #[error("another request of this idempotency key was refused meanwhile")]
    KeyRefused,
    /// Nothing was to be stored: given by callers that only ask what would be, never by the writer.
    #[error("nothing was stored: it was only asked what would be")]
    DryRun,
    /// It is not what was agreed on: given by callers that hold a decision against an earlier one,
    /// never by the writer.
    #[error("this is not the plan that was agreed on")]
    PlanChanged,
    /// What it changes has moved since the caller looked: given by callers that compare, never by the
    /// writer.
    #[error("{aggregate_type}/{aggregate_id} has changed since it was read")]
    Overtaken { aggregate_type: String, aggregate_id: String },
    /// The database refuses these bytes, now and always.
    #[error("the database refuses this append: {reason}")]
    Invalid { reason: String },
    /// The queue is full.
    #[error("too many appends are waiting")]
    Busy { retry_after: Duration },
    /// The database cannot be reached or cannot write (disk full, read-only); nothing was stored.
    #[error("the event store is not available: {reason}")]
    Unavailable { reason: String, retry_after: Duration },
    /// The outcome could not be learnt within the writer's patience; resubmit with the same `id`.
    #[error("the outcome of the append is unknown")]
    Unknown,
    /// The store is shutting down.
    #[error("the event store is closed")]
    Closed,
}

impl AppendError {
    /// Whether a stream that it changes or rests on had moved: decided anew, it may be stored.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AssertionFailed { .. })
    }
}

/// One stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub position: Position,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: u64,
    pub event_type: String,
    pub event_version: String,
    /// JSON text as stored.
    pub payload: String,
    /// JSON text as stored.
    pub metadata: String,
    /// Microseconds since 1970, the database host's clock.
    pub recorded_at: i64,
}
