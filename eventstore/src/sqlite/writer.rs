//! The one thread that writes `events.db`.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Lock;
use super::batch::{self, Trouble};
use crate::append::{AppendError, Position};
use crate::error::Error;
use crate::queue::{Job, Queue, Turn};
use crate::task::advance;

/// How often a batch whose commit failed in an unclear way is submitted again.
const RESUBMISSIONS: u32 = 3;

/// The writer's connection and what it knows about the schema.
pub(crate) struct Writer {
    pub connection: Connection,
    pub unique_names: HashMap<String, String>,
    head: watch::Sender<Position>,
    callers: Handle,
    _lock: Lock,
}

/// Up to so many answers are given by the writer itself, which is sooner by one change of threads;
/// of more it would wake so many callers that the next batch waited for it.
const FEW_ANSWERS: usize = 2;

impl Writer {
    /// `callers` is the runtime on which answers are awaited.
    pub fn new(
        connection: Connection,
        head: watch::Sender<Position>,
        callers: Handle,
        lock: Lock,
    ) -> Result<Self, Error> {
        let unique_names = super::schema::unique_names(&connection)?;
        Ok(Self { connection, unique_names, head, callers, _lock: lock })
    }

    /// Works until the queue is closed and empty.
    pub fn run(mut self, queue: &Queue<Self>) {
        /// Lets nobody wait for a thread that is gone.
        struct Abandon<'a>(&'a Queue<Writer>);
        impl Drop for Abandon<'_> {
            fn drop(&mut self) {
                self.0.abandon();
            }
        }
        let _abandon = Abandon(queue);
        while let Some(turn) = queue.next_blocking() {
            match turn {
                Turn::Errands(errands) => {
                    for errand in errands {
                        errand(&mut self);
                        self.roll_back();
                    }
                }
                Turn::Batch(jobs) => self.settle(jobs),
            }
        }
        // Whoever copies the file of a stopped server has all of it, also when a reader closes last.
        let merged = "pragma wal_checkpoint(truncate)";
        if let Err(error) = self.connection.query_row(merged, [], |_| Ok(())) {
            tracing::debug!(%error, "the write-ahead log of events.db stays beside it");
        }
    }

    /// Stores a batch and answers each of its appends.
    fn settle(&mut self, jobs: Vec<Job>) {
        let mut careful = false;
        let mut resubmissions = 0;
        loop {
            match batch::store(self, &jobs, careful) {
                Ok((answers, head)) => {
                    advance(&self.head, head);
                    let few = jobs.len() <= FEW_ANSWERS;
                    let give = move || {
                        for (job, answer) in jobs.into_iter().zip(answers) {
                            job.answer(answer);
                        }
                    };
                    if few {
                        give();
                    } else {
                        self.callers.spawn(async move { give() });
                    }
                    return;
                }
                // One append spoils the batch: once more, with a savepoint around each.
                Err(Trouble::Spoilt) if !careful => careful = true,
                Err(Trouble::Spoilt) => {
                    return refuse(jobs, || unavailable("the batch cannot be stored".to_owned()));
                }
                Err(Trouble::Unavailable(reason)) => {
                    tracing::warn!(reason, appends = jobs.len(), "the event log cannot be written");
                    return refuse(jobs, || unavailable(reason.clone()));
                }
                // Its frames may be in the file although the commit failed. The same ids again tell.
                Err(Trouble::Unknown(reason)) => {
                    tracing::warn!(reason, appends = jobs.len(), "a commit's outcome is unknown");
                    if resubmissions == RESUBMISSIONS {
                        return refuse(jobs, || AppendError::Unknown);
                    }
                    resubmissions += 1;
                    std::thread::sleep(Duration::from_millis(50 << resubmissions));
                }
            }
        }
    }

    /// Leaves no transaction open, whatever happened.
    pub fn roll_back(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("rollback") {
            tracing::error!(%error, "a transaction cannot be rolled back");
        }
    }
}

fn refuse(jobs: Vec<Job>, error: impl Fn() -> AppendError) {
    for job in jobs {
        job.answer(Err(error()));
    }
}

fn unavailable(reason: String) -> AppendError {
    AppendError::Unavailable { reason, retry_after: Duration::from_secs(2) }
}

/// Whether the statement, and not the disk, is at fault.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange
                | ErrorCode::Unknown
        ),
        _ => true,
    }
}
