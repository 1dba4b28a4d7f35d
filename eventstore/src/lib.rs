//! One ordered, gap-free, sealed log of events on SQLite or PostgreSQL; it knows rows, not meanings.

mod append;
mod side;

pub use append::{
    Append, AppendError, Appended, Assertion, Expected, Fence, Idempotency, Lane, NewEvent,
    Outcome, Position, Recorded, StreamAppend,
};
pub use side::{Column, ColumnType, Guard, Row, SideWrite, Table, Value};
