//! One ordered, gap-free, sealed log of events on SQLite or PostgreSQL; it knows rows, not meanings.

mod append;
mod claim;
mod error;
mod migrations;
mod options;
mod postgres;
mod queue;
mod seal;
mod sealer;
mod side;
mod side_sql;
mod sqlite;
mod store;
pub mod tables;
mod task;
mod verify;

pub use append::{
    Append, AppendError, Appended, Assertion, Expected, Fence, Idempotency, Lane, NewEvent,
    Outcome, Position, Recorded, StreamAppend,
};
pub use claim::{Claim, KeptAnswer};
pub use error::Error;
pub use options::{Location, Options};
pub use queue::Stats;
pub use seal::{PublishedHead, Seal, key_id};
pub use side::{Column, ColumnType, Guard, Row, SideWrite, Table, Value};
pub use store::{MigrationReport, Store, sqlite_file};
pub use verify::{SealFault, SealReport, verify};

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            unreachable!("a String accepts every write");
        }
        text
    })
}
