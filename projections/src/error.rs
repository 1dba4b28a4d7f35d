//! What can go wrong with read models; none of it touches the log.

use std::time::Duration;

use proximity_eventstore::Position;

/// Why read models could not be read, followed, rebuilt or verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the read models' SQLite database failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the read models' PostgreSQL database failed")]
    Postgres(#[from] sqlx::Error),
    #[error("the log could not be read")]
    Feed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log gave fewer events than it has: its reader was cut off.
    #[error("the log ended at {reached} before its head {head}")]
    Short { reached: Position, head: Position },
    /// The log lost its end, or is another one than the rows were made of.
    #[error(
        "the rows of projection {name} go up to {position}, the log to {head}: \
         `proximity projections rebuild {name}` builds them from this log"
    )]
    Ahead { name: String, position: Position, head: Position },
    /// The log is dense, so a gap means that events were lost on the way.
    #[error("the log gave position {found} after {after}")]
    Gap { after: Position, found: Position },
    /// The projection met an event that it cannot apply.
    #[error("projection {name} cannot apply event {position}: {reason}")]
    Stopped { name: String, position: Position, reason: String },
    #[error("there is no projection named {name:?}")]
    NoSuchProjection { name: String },
    /// Another build of it is running, here or in another process.
    #[error("projection {name} is being built already")]
    Building { name: String },
    /// Another build took this one's place.
    #[error("the build of projection {name} was replaced by another one")]
    Replaced { name: String },
    /// It was built once only, or the previous generation was dropped.
    #[error("projection {name} has no previous generation")]
    NoPrevious { name: String },
    /// Only the program that built it can bring it forward.
    #[error(
        "the previous generation of projection {name} is of version {version}, this program keeps \
         version {known}: switch back with the program that built it"
    )]
    PreviousVersion { name: String, version: i32, known: i32 },
    /// The log was restored from a backup since.
    #[error("the previous generation of projection {name} is of another life of the log")]
    PreviousLife { name: String },
    /// The rows belong to an older version of the program.
    #[error(
        "projection {name} is of an older version of this program; the next start of the server builds \
         it anew"
    )]
    Outdated { name: String },
    /// The rows belong to a newer version of the program.
    #[error("projection {name} is kept by a newer version of this program")]
    Superseded { name: String },
    #[error("projection {name} did not reach position {position} within {waited:?}")]
    Behind { name: String, position: Position, waited: Duration },
    #[error("a row of {table} cannot be read: {reason}")]
    Row { table: String, reason: String },
    #[error("the read models are closed")]
    Closed,
    /// Opened for reading only, or read as a file that nobody changes.
    #[error("the read models' file cannot be read")]
    File(#[source] proximity_eventstore::Error),
    #[error("the read models' directory cannot be used")]
    Io(#[from] std::io::Error),
}

/// An error with everything that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
