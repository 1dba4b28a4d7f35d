//! Idempotency keys: the same request again gets the first answer again, and has no second effect.

use std::sync::atomic::{AtomicBool, Ordering};

use proximity_eventstore::{AppendError, Idempotency, KeptAnswer, Position, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::actor::Actor;
use crate::dispatch::Committed;
use crate::error::Error;

/// A caller's key for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceKey {
    /// The route and the client's key, joined.
    pub key: String,
    /// Keyed fingerprint of the request's body.
    pub fingerprint: String,
}

/// What stands under a key in place of an answer once a try of it was refused; answers are objects.
const REFUSED: &str = "\"refused\"";

/// How it begins, in place of an answer, where a call changed nothing and left no event of its own: the
/// request follows.
const UNCHANGED: &str = "\"unchanged ";

impl OnceKey {
    /// The same key after so many refusals: what tries before the last of them store, is not stored
    /// under it.
    #[must_use]
    pub fn after(&self, refusals: u32) -> Self {
        let key = match refusals {
            0 => self.key.clone(),
            // No header holds a line break, so this is no other client's key.
            _ => format!("{}\n{refusals}", self.key),
        };
        Self { key, fingerprint: self.fingerprint.clone() }
    }

    /// What is stored under it when it is refused.
    pub(crate) fn refused(&self, actor: &Actor) -> Idempotency {
        Idempotency {
            actor: actor.lane(),
            key: self.key.clone(),
            fingerprint: self.fingerprint.clone(),
            answer: Some(REFUSED.to_owned()),
        }
    }
}

/// Whether what is kept under a key says that a try of it was refused.
pub fn is_refusal(answer: Option<&str>) -> bool {
    answer == Some(REFUSED)
}

/// Which request changed nothing, where what is kept under a key says no more than that.
pub(crate) fn unchanged_by(answer: Option<&str>) -> Option<&str> {
    answer?.strip_prefix(UNCHANGED)?.strip_suffix('"')
}

/// The key of one request on its way: the first unit of work that is stored takes it along, so that
/// whatever the command is, it has one effect.
#[derive(Debug)]
pub struct Once {
    pub key: OnceKey,
    taken: AtomicBool,
}

impl Once {
    /// Nothing is stored under it by this request yet.
    pub fn new(key: OnceKey) -> Self {
        Self { key, taken: AtomicBool::new(false) }
    }

    /// Whether this very request has stored something under the key.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) {
        self.taken.store(true, Ordering::Release);
    }

    /// What is stored beside the append while the key is free; the answer is kept later.
    pub(crate) fn mark(&self, actor: &Actor) -> Option<Idempotency> {
        (!self.is_taken()).then(|| Idempotency {
            actor: actor.lane(),
            key: self.key.key.clone(),
            fingerprint: self.key.fingerprint.clone(),
            answer: None,
        })
    }

    /// The same for a request that changed nothing, and of which nothing else is stored.
    pub(crate) fn mark_unchanged(&self, actor: &Actor) -> Option<Idempotency> {
        // An id of our own making: nothing in it has to be escaped.
        let request = actor.request.as_deref().unwrap_or_default();
        let answer = Some(format!("{UNCHANGED}{request}\""));
        self.mark(actor).map(|mark| Idempotency { answer, ..mark })
    }
}

impl PartialEq for Once {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Once {}

/// A command that is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done<T> {
    pub value: T,
    /// The log's position up to which everything that the command did can be read.
    pub position: Position,
    /// The key had been used: `value` is the first answer, and nothing was done now.
    pub replayed: bool,
}

/// The first answer under this key, if there is one; asked before anything is decided, since the
/// first request's own effects (a hostname taken, say) would refuse the second one.
pub async fn kept<T: DeserializeOwned>(
    store: &Store,
    actor: &Actor,
    key: Option<&OnceKey>,
) -> Result<Option<Done<T>>, Error> {
    let Some(key) = key else { return Ok(None) };
    let kept = store
        .idempotent(&actor.lane(), &key.key)
        .await
        .map_err(|error| Error::internal("an idempotency key cannot be looked up", error))?;
    kept.map(|kept| again(kept, key)).transpose()
}

/// What is stored beside the append, so that the answer can be given again. It holds no secret.
pub fn keep<T: Serialize>(
    actor: &Actor,
    key: Option<&OnceKey>,
    answer: &T,
) -> Result<Option<Idempotency>, Error> {
    let Some(key) = key else { return Ok(None) };
    let answer = serde_json::to_string(answer)
        .map_err(|error| Error::internal("an answer has no JSON form", error))?;
    Ok(Some(Idempotency {
        actor: actor.lane(),
        key: key.key.clone(),
        fingerprint: key.fingerprint.clone(),
        answer: Some(answer),
    }))
}

/// What became of an append that was stored under a key, or found stored before.
pub fn done<T: DeserializeOwned>(committed: Committed, value: T) -> Result<Done<T>, Error> {
    match committed.replayed {
        None => Ok(Done { value, position: committed.position, replayed: false }),
        Some(answer) => {
            Ok(Done { value: read(answer)?, position: committed.position, replayed: true })
        }
    }
}

fn again<T: DeserializeOwned>(kept: KeptAnswer, key: &OnceKey) -> Result<Done<T>, Error> {
    if is_refusal(kept.answer.as_deref()) {
        return Err(AppendError::KeyRefused.into());
    }
    if kept.fingerprint != key.fingerprint {
        return Err(AppendError::KeyReused.into());
    }
    Ok(Done { value: read(kept.answer)?, position: kept.position, replayed: true })
}

fn read<T: DeserializeOwned>(answer: Option<String>) -> Result<T, Error> {
    let answer = answer.filter(|answer| unchanged_by(Some(answer)).is_none());
    let Some(answer) = answer else { return Err(AppendError::KeyUsed.into()) };
    serde_json::from_str(&answer)
        .map_err(|error| Error::internal("a kept answer cannot be read", error))
}
