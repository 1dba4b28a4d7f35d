//! Idempotency keys: the same request again gets the first answer again, and has no second effect.

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
        .idempotent(&actor.name(), &key.key)
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
        actor: actor.name(),
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
    if kept.fingerprint != key.fingerprint {
        return Err(AppendError::KeyReused.into());
    }
    Ok(Done { value: read(kept.answer)?, position: kept.position, replayed: true })
}

fn read<T: DeserializeOwned>(answer: Option<String>) -> Result<T, Error> {
    let Some(answer) = answer else {
        return Err(Error::conflict(
            "idempotency_key.answer_gone",
            "this request was carried out; its answer showed a secret once and is not kept",
        ));
    };
    serde_json::from_str(&answer)
        .map_err(|error| Error::internal("a kept answer cannot be read", error))
}
