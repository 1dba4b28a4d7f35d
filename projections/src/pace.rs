//! How much of the machine work on the log takes for itself.

use std::sync::{Arc, LazyLock};

use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::error::Error;

/// Pieces of work at a time where one core is left to those who read meanwhile.
static ALL_BUT_ONE: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(cores().saturating_sub(1).max(1)));
/// Pieces of work at a time where nobody does.
static ALL: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(cores()));

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) type Core = SemaphorePermit<'static>;

/// How fast a build is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// It reads, folds and writes at the same time, each on a core.
    #[default]
    Alone,
    /// Somebody serves meanwhile: all that it does is counted, and a core is left to him.
    Beside,
}

impl Pace {
    /// Waits until a core may be used for folding, while what is returned is held.
    pub(crate) async fn folding(self) -> Result<Core, Error> {
        let cores = match self {
            Self::Alone => &ALL,
            Self::Beside => &ALL_BUT_ONE,
        };
        cores.acquire().await.map_err(|_| Error::Closed)
    }

    /// The same for reading and writing, which are counted beside others only. Whoever holds one must not
    /// wait for a session: whoever has that may be waiting for a core.
    pub(crate) async fn core(self) -> Result<Option<Core>, Error> {
        match self {
            Self::Alone => Ok(None),
            Self::Beside => self.folding().await.map(Some),
        }
    }
}

/// Taken by the one of several projections that writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    lock: Arc<Mutex<()>>,
    pub pace: Pace,
}

impl Turn {
    pub fn at(pace: Pace) -> Self {
        Self { lock: Arc::default(), pace }
    }

    /// Waits for it; it ends when what is returned is dropped.
    pub async fn take(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.lock).lock_owned().await
    }
}
