//! An append of one event that stands in a stream of its own kind and decides nothing: what is written
//! down beside the commands.

use cqrs_es::DomainEvent;
use proximity_eventstore::{
    Append, AppendError, Expected, Lane, NewEvent, Outcome, Store, StreamAppend,
};
use serde::Serialize;
use uuid::Uuid;

use crate::once::is_refusal;
use crate::{Actor, Error, Metadata};

/// The append, under this id and in this lane.
pub(crate) fn single<E: DomainEvent + Serialize>(
    id: Uuid,
    lane: String,
    (aggregate_type, aggregate_id): (&str, String),
    event: &E,
    metadata: &Metadata,
) -> Result<Append, Error> {
    let payload = serde_json::to_string(event)
        .map_err(|error| Error::internal("an event cannot be written", error))?;
    Ok(Append {
        id,
        lane: Lane::User(lane),
        streams: vec![StreamAppend {
            metadata: None,
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id,
            expected: Expected::Any,
            events: vec![NewEvent {
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload,
            }],
        }],
        assertions: vec![],
        side: vec![],
        metadata: metadata.to_json(),
        fence: None,
        idempotency: None,
    })
}

/// Stores it, with the actor's idempotency key if there is one: once for all requests of that key.
/// Returns false when another one of them was faster.
pub(crate) async fn store_once(
    store: &Store,
    actor: &Actor,
    mut append: Append,
) -> Result<bool, Error> {
    append.idempotency = actor.once.as_ref().and_then(|once| once.mark(actor));
    match taken(store, actor, append.clone()).await? {
        Taken::Now => {}
        Taken::ByAnother => return Ok(false),
        // This was done all the same.
        Taken::Not => {
            append.idempotency = None;
            store.append(append).await?;
        }
    }
    actor.told.set();
    Ok(true)
}

/// Marks the actor's idempotency key with the request, without an event. Returns false when another
/// request of that key was faster.
pub(crate) async fn mark_once(store: &Store, actor: &Actor) -> Result<bool, Error> {
    let mark = actor.once.as_ref().and_then(|once| once.mark_unchanged(actor));
    if mark.is_none() {
        return Ok(true);
    }
    let append = Append {
        id: Uuid::now_v7(),
        lane: Lane::User(actor.lane()),
        streams: vec![],
        assertions: vec![],
        side: vec![],
        metadata: "{}".to_owned(),
        fence: None,
        idempotency: mark,
    };
    Ok(taken(store, actor, append).await? != Taken::ByAnother)
}

/// What came of an append that takes a key along.
#[derive(PartialEq, Eq)]
enum Taken {
    Now,
    /// Another request of the key, at another server, was carried out and stored at the same time.
    ByAnother,
    /// The key has been refused, or taken for something else, meanwhile.
    Not,
}

async fn taken(store: &Store, actor: &Actor, append: Append) -> Result<Taken, Error> {
    match store.append(append).await {
        Ok(Outcome::Stored(_)) => {
            if let Some(once) = &actor.once {
                once.take();
            }
            Ok(Taken::Now)
        }
        Ok(Outcome::Replayed { answer, .. }) if !is_refusal(answer.as_deref()) => {
            Ok(Taken::ByAnother)
        }
        Ok(Outcome::Replayed { .. }) | Err(AppendError::KeyReused) => Ok(Taken::Not),
        Err(error) => Err(error.into()),
    }
}
