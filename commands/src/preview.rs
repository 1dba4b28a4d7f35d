//! Dry runs: the same decision as for real, with its append written down instead of stored.
//!
//! A preview travels with the caller, as an idempotency key does; a unit of work that finds one
//! leaves its events there and stores nothing. No command knows of it.

use std::sync::{Mutex, PoisonError};

use proximity_domain::operation::Event as Operation;
use proximity_domain::plan::Plan;
use proximity_eventstore::NewEvent;

use crate::error::Error;

/// Where a unit of work leaves what it would have stored.
#[derive(Debug, Default)]
pub struct Preview(Mutex<Option<Draft>>);

/// What would have been stored.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub events: Vec<DraftEvent>,
}

/// One event that was not stored.
#[derive(Debug, Clone)]
pub struct DraftEvent {
    pub aggregate_type: String,
    pub aggregate_id: String,
    /// Its place in its stream, from 1.
    pub sequence: u64,
    pub event_type: String,
    pub event_version: String,
    /// JSON text; no secret is ever in one.
    pub payload: String,
}

/// Only one and the same preview is equal to itself.
impl PartialEq for Preview {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Preview {}

impl Preview {
    /// What was left here; `None` when nothing would be stored.
    pub fn taken(&self) -> Option<Draft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves one unit's events, stream by stream.
    pub(crate) fn leave(&self, unit: Draft) {
        let mut draft = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        draft.get_or_insert_default().events.extend(unit.events);
    }
}

impl Draft {
    /// What a unit of work would store: kind, id and last sequence of each stream, and its new events.
    pub(crate) fn of<'e>(
        streams: impl Iterator<Item = (&'e str, &'e str, u64, &'e [NewEvent])>,
    ) -> Self {
        let events = streams.flat_map(|(aggregate_type, aggregate_id, last, events)| {
            events.iter().zip(last + 1..).map(|(event, sequence)| DraftEvent {
                aggregate_type: aggregate_type.to_owned(),
                aggregate_id: aggregate_id.to_owned(),
                sequence,
                event_type: event.event_type.clone(),
                event_version: event.event_version.clone(),
                payload: event.payload.clone(),
            })
        });
        Self { events: events.collect() }
    }

    /// The plan of the operation that would be begun, with its steps; `None` when none would be.
    pub fn plan(&self) -> Result<Option<(Plan, Vec<String>)>, Error> {
        let planned = self.events.iter().find(|event| event.event_type == "operation.planned");
        let Some(planned) = planned else { return Ok(None) };
        let event: Operation = serde_json::from_str(&planned.payload)
            .map_err(|error| Error::internal("a drafted event cannot be read", error))?;
        match event {
            Operation::Planned { plan, steps, .. } => Ok(Some((plan, steps))),
            _ => Ok(None),
        }
    }
}
