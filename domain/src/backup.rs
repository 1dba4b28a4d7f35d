//! The backup aggregate: one archive of an application's container, by our own record of it.
//!
//! ```text
//! absent ──request──▶ creating ──complete──▶ completed ──begin──▶ in use ──end──▶ completed
//!                        │fail                   ▲                  │finish deletion
//!                        ▼                       │                  ▼
//!                      failed ──begin──▶ in use ─┘(ends as it was) deleted
//! ```
//! Retention and deletion go by these records, never by names found on a storage.

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::plan::Kind;
use crate::value::OperationId;

/// What can be asked of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Request(Box<Requested>),
    Complete {
        operation: OperationId,
        archive: Archive,
    },
    /// `absent`: no archive of it was left.
    Fail {
        operation: OperationId,
        problem: String,
        absent: bool,
    },
    /// Reserves it for an operation that uses or removes it.
    Begin {
        operation: OperationId,
        kind: Kind,
    },
    /// The operation is over and the backup as it was; `problem` when it failed.
    End {
        operation: OperationId,
        problem: Option<String>,
    },
    FinishDeletion {
        operation: OperationId,
    },
}

/// Why it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such backup")]
    NotFound,
    #[error("this backup exists already")]
    AlreadyExists,
    #[error("another operation on this backup is running")]
    Busy { operation: OperationId },
    #[error("this backup did not succeed; it can only be deleted")]
    OnlyDeletable,
    #[error("this operation is not the one that works on the backup")]
    NotThisOperation,
}

/// A backup as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backup {
    #[default]
    Absent,
    Kept(Box<Kept>),
    Deleted,
}

/// A backup that is being made, or that there is a record of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub requested: Requested,
    pub outcome: Outcome,
    /// The operation that makes, uses or removes it.
    pub current: Option<OperationId>,
}

/// What came of making it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Open,
    Completed(Archive),
    /// `absent`: no archive of it was left.
    Failed {
        absent: bool,
    },
}

impl Backup {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Absent, Command::Request(requested)) => Ok(vec![Event::Requested(requested)]),
            (Self::Kept(_) | Self::Deleted, Command::Request(_)) => Err(Error::AlreadyExists),
            (Self::Absent | Self::Deleted, _) => Err(Error::NotFound),
            (Self::Kept(kept), command) => kept.decide(command),
        }
    }

    /// What is known of it while there is a record.
    pub fn kept(&self) -> Option<&Kept> {
        match self {
            Self::Kept(kept) => Some(kept),
            Self::Absent | Self::Deleted => None,
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Requested(requested)) => {
                let current = Some(requested.operation);
                Self::Kept(Box::new(Kept {
                    requested: *requested,
                    outcome: Outcome::Open,
                    current,
                }))
            }
            (_, Event::Deleted { .. }) => Self::Deleted,
            (Self::Kept(kept), event) => Self::Kept(Box::new(kept.evolve(event))),
            (state @ (Self::Absent | Self::Deleted), _) => state,
        }
    }
}

impl Kept {
    fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::Request(_) => Err(Error::AlreadyExists),
            Command::Complete { operation, archive } => {
                self.under(operation, Event::Completed { operation, archive })
            }
            Command::Fail { operation, problem, absent } => {
                self.under(operation, Event::Failed { operation, problem, absent })
            }
            Command::Begin { operation, kind } => match (self.current, &self.outcome) {
                (Some(current), _) if current == operation => Ok(vec![]),
                (Some(operation), _) => Err(Error::Busy { operation }),
                (None, Outcome::Open | Outcome::Failed { .. }) if kind != Kind::BackupDelete => {
                    Err(Error::OnlyDeletable)
                }
                (None, _) => Ok(vec![Event::OperationBegan { operation, kind }]),
            },
            Command::End { operation, problem } => {
                self.under(operation, Event::OperationEnded { operation, problem })
            }
            Command::FinishDeletion { operation } => {
                self.under(operation, Event::Deleted { operation })
            }
        }
    }

    fn under(&self, operation: OperationId, event: Event) -> Result<Vec<Event>, Error> {
        if self.current == Some(operation) { Ok(vec![event]) } else { Err(Error::NotThisOperation) }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Completed { archive, .. } => {
                self.outcome = Outcome::Completed(archive);
                self.current = None;
            }
            Event::Failed { absent, .. } => {
                self.outcome = Outcome::Failed { absent };
                self.current = None;
            }
            Event::OperationBegan { operation, .. } => self.current = Some(operation),
            Event::OperationEnded { .. } => self.current = None,
            Event::Requested(_) | Event::Deleted { .. } => {}
        }
        self
    }
}

impl Aggregate for Backup {
    const TYPE: &'static str = "backup";
    type Command = Command;
    type Event = Event;
    type Error = Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Error> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        *self = std::mem::take(self).evolve(event);
    }
}
