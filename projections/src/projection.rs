//! What a read model is: a name, a version, a table, and a pure fold from a stream to one row.

use std::marker::PhantomData;

use proximity_eventstore::{Position, Stored};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cell::{Cell, Table};
use crate::fold::{AnyFold, Fold};

/// Where an event stands.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The stream's id, which is the row's key too.
    pub id: &'a str,
    pub position: Position,
    pub sequence: u64,
    /// Microseconds since 1970.
    pub recorded_at: i64,
}

impl<'a> At<'a> {
    pub(crate) fn of(stored: Stored<'a>) -> Self {
        Self {
            id: stored.aggregate_id,
            position: stored.position,
            sequence: stored.sequence,
            recorded_at: stored.recorded_at,
        }
    }
}

/// A stored event's payload.
pub(crate) fn read<E: DeserializeOwned>(stored: Stored<'_>) -> Result<E, Cannot> {
    serde_json::from_str(stored.payload)
        .map_err(|error| Cannot(format!("{} cannot be read: {error}", stored.event_type)))
}

/// Why an event cannot be applied; the projection stops here, visibly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cannot(pub String);

/// Folds the events of one kind of stream into one row per stream.
pub trait Projection: Send + Sync + 'static {
    /// The name of it, and of its table.
    const NAME: &'static str;
    /// Raise it when `apply` gives other rows than before: the new ones are built beside the live
    /// ones, which are read until the switch, so a new `Row` must still read an old one.
    const VERSION: i32;
    /// The `aggregate_type` whose streams it folds.
    const STREAM: &'static str;
    /// Key `id` (text), the columns of [`Projection::columns`], and last `body`, the row as JSON.
    const TABLE: Table;
    /// Tables that earlier versions had beside it; they go where their generation goes.
    const RETIRED: &'static [&'static str] = &[];

    /// What a payload is read as.
    type Event: DeserializeOwned;
    /// The row, which is the response body too.
    type Row: Serialize + DeserializeOwned + Send + Sync;

    /// Folds one event into the row of its stream (`None`: there is none); must leave the row as it
    /// was when it fails.
    fn apply(row: &mut Option<Self::Row>, event: Self::Event, at: At<'_>) -> Result<(), Cannot>;

    /// The values of the columns between `id` and `body`.
    fn columns(row: &Self::Row) -> Vec<Cell>;

    /// Whether no further event can come for it, so that whoever reads the whole log lets it go.
    fn is_final(_row: &Self::Row) -> bool {
        false
    }
}

/// A projection without its types, as the runner holds it.
pub trait AnyProjection: Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> i32;
    fn table(&self) -> Table;
    /// The names of tables that earlier versions had beside it.
    fn retired(&self) -> &'static [&'static str];
    /// An empty fold.
    fn fold(&self) -> Box<dyn AnyFold>;
}

struct Erased<P>(PhantomData<P>);

impl<P: Projection> AnyProjection for Erased<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> i32 {
        P::VERSION
    }

    fn table(&self) -> Table {
        P::TABLE
    }

    fn retired(&self) -> &'static [&'static str] {
        P::RETIRED
    }

    fn fold(&self) -> Box<dyn AnyFold> {
        Box::new(Fold::<P>::default())
    }
}

/// The projection as the runner takes it.
pub fn boxed<P: Projection>() -> Box<dyn AnyProjection> {
    Box::new(Erased(PhantomData::<P>))
}
