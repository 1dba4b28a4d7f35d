//! Up to where in the log the caller has seen what is to be changed: what an `If-Match` header says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proximity_eventstore::{AppendError, Position, Store};

/// A position that a request's first change must not have been overtaken by; shared by all that act for
/// the request, and not set in most.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<AtomicU64>);

impl Seen {
    /// What the caller saw was the state at this position or later: nothing that is changed may have
    /// moved since.
    pub fn set(&self, position: Position) {
        self.0.store(position, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<Position> {
        Some(self.0.load(Ordering::Acquire)).filter(|position| *position > 0)
    }

    /// The first change is made; the ones that follow from it are not compared.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Seen {}

/// Kind and id of a stream, and the sequence of its last event.
pub(crate) type Changed = (&'static str, String, u64);

/// Refuses when something that is to be changed has moved since the caller saw it. Between here and the
/// append, the expected sequences see to that.
pub(crate) async fn not_overtaken(
    store: &Store,
    seen: Position,
    changed: Vec<Changed>,
) -> Result<(), AppendError> {
    for (aggregate_type, aggregate_id, sequence) in changed {
        let stored = store.load_stream(aggregate_type, &aggregate_id).await;
        let stored = stored.map_err(|error| AppendError::Unavailable {
            reason: error.to_string(),
            retry_after: Duration::from_secs(1),
        })?;
        let last = stored.iter().find(|event| event.sequence == sequence);
        if last.is_some_and(|last| last.position > seen) {
            let aggregate_type = aggregate_type.to_owned();
            return Err(AppendError::Overtaken { aggregate_type, aggregate_id });
        }
    }
    Ok(())
}
