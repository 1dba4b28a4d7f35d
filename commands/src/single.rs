//! An append of one event that stands in a stream of its own kind and decides nothing: what is written
//! down beside the commands.

use cqrs_es::DomainEvent;
use proximity_eventstore::{Append, Expected, Lane, NewEvent, StreamAppend};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Metadata};

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
