//! An application as it was: the fold of the live row, over a part of its events.

use proximity_eventstore::Recorded;
use serde::de::DeserializeOwned;

use super::fold::Applications;
use super::{App, AppOperation};
use crate::operations::Operations;
use crate::projection::{At, Cannot, Projection, read};

/// The application after these events, its operations' among them; `None` when it was not there yet,
/// or was gone. What only the present knows (addresses to open, figures) is left out.
pub fn after(id: &str, events: &[Recorded]) -> Result<Option<App>, Cannot> {
    let Some(row) = fold::<Applications>(id, events)? else { return Ok(None) };
    if row.is_removed() {
        return Ok(None);
    }
    let running = row.operation();
    let mut app = row.app;
    if let Some(operation) = running.map(|operation| operation.to_string())
        && let Some(row) = fold::<Operations>(&operation, events)?
    {
        app.operation = Some(AppOperation {
            id: operation,
            kind: row.operation.kind,
            step: row.operation.step,
            attempt: row.operation.attempt,
        });
    }
    Ok(Some(app))
}

/// The row after those of these events that are its stream's.
pub(crate) fn fold<P: Projection>(id: &str, events: &[Recorded]) -> Result<Option<P::Row>, Cannot>
where
    P::Event: DeserializeOwned,
{
    let mut row = None;
    let stream =
        events.iter().filter(|event| event.aggregate_type == P::STREAM && event.aggregate_id == id);
    for recorded in stream {
        P::apply(&mut row, read(recorded.stored())?, At::of(recorded.stored()))?;
    }
    Ok(row)
}
