//! One ordered, gap-free, sealed log of events on SQLite or PostgreSQL; it knows rows, not meanings.

mod append;
pub mod backup;
mod claim;
mod error;
mod heads;
mod kept;
mod migrations;
mod options;
mod page;
mod postgres;
mod private;
mod queue;
mod restore;
mod rights;
mod seal;
mod sealer;
mod search;
mod side;
mod side_sql;
mod signed;
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
pub use heads::{Gone, Head, HeadsDir, Left, Life, Proof};
pub use options::{Location, Options};
pub use page::{Page, Stored};
pub use postgres::{Alone, is_served, postgres_alive};
pub use private::make_private;
pub use queue::Stats;
pub use restore::{Began, Restore, record_restore};
pub use rights::Rights;
pub use seal::Seal;
pub use sealer::{Renewed, SealState, Sealing};
pub use search::{Found, Search};
pub use side::{Column, ColumnType, Guard, Row, SideWrite, Table, Value};
pub use signed::{Signed, Statement, Trusted, Vouched, key_id, parse_public_key, public_key_text};
pub use sqlite::{Still, faults as sqlite_faults, open_for_reading as open_sqlite_for_reading};
pub use store::{MigrationReport, Store, sqlite_file};
pub use verify::{
    Fault, FaultKind, LifeReport, Reached, VerifyProgress, VerifyReport, Waiting, reached,
    unsealable, verify, waiting,
};

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

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}
