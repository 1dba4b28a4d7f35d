//! How a store is opened: where it lies, and the bound on everything that could grow.

use std::path::PathBuf;
use std::time::Duration;

use crate::side::Table;
use crate::tables;

/// Where the log lies.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// `events.db` in this directory, beside its lock file; one server at a time.
    Sqlite { dir: PathBuf },
    /// A PostgreSQL database, `postgres://…`; any number of servers.
    Postgres { url: String },
}

/// Leaves out the URL, which may carry a password.
impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { dir } => f.debug_struct("Sqlite").field("dir", dir).finish(),
            Self::Postgres { .. } => f.debug_struct("Postgres").finish_non_exhaustive(),
        }
    }
}

/// What `Store::open` needs to know; start from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    pub location: Location,
    /// Checked against the database when the store opens.
    pub side_tables: &'static [&'static Table],
    /// Appends that may wait in each lane; more are refused as `Busy`.
    pub queue: usize,
    /// Appends in one transaction.
    pub batch: usize,
    /// Bytes of events and side rows in one append; more is refused as `Invalid`.
    pub append_bytes: usize,
    /// Connections for reading.
    pub readers: u32,
    /// How long the writer tries to learn an outcome before it answers `Unknown`.
    pub patience: Duration,
    /// How often the head is looked up when no notification came.
    pub poll: Duration,
    /// Whether this is a server, beside which some commands do not run: see [`crate::Alone`].
    pub serving: bool,
}

impl Options {
    /// Defaults for one server of moderate load.
    pub fn new(location: Location) -> Self {
        Self {
            location,
            side_tables: tables::ALL,
            queue: 4_096,
            batch: 512,
            append_bytes: 4 << 20,
            readers: 8,
            patience: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            serving: false,
        }
    }

    /// The same for a server.
    #[must_use]
    pub fn to_serve(self) -> Self {
        Self { serving: true, ..self }
    }

    /// The embedded store in `dir`.
    pub fn sqlite(dir: impl Into<PathBuf>) -> Self {
        Self::new(Location::Sqlite { dir: dir.into() })
    }

    /// The PostgreSQL database at `url`.
    pub fn postgres(url: impl Into<String>) -> Self {
        Self::new(Location::Postgres { url: url.into() })
    }
}
