//! The schedule aggregate: when an owner's applications are backed up, and how many backups are kept.
//!
//! ```text
//! absent ──create──▶ waiting ──fire──▶ running ──end run──▶ waiting
//!                      │  ▲               │
//!                      │  └─pass over─────┘(stays running)
//!                      └──delete──▶ deleted
//! ```
//! Each time that comes is a fact of this stream: it is fired, or passed over, exactly once, whoever
//! noticed it first. What a run does stands in a stream of its own, [`crate::backup_run`].

mod event;
pub mod retention;
#[cfg(test)]
mod tests;
mod timing;

pub use event::*;
pub use retention::Retention;
pub use timing::{Cron, Timezone};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::value::{ApplicationId, UserId};

/// What can be asked of a schedule. `next` is what its calendar says; `None`: it is switched off, or
/// no time comes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Box<Created>),
    Change { settings: Settings, next: Option<i64> },
    Fire { due: i64, next: Option<i64> },
    PassOver { due: i64, next: Option<i64>, reason: PassedOver },
    EndRun { due: i64, outcomes: Vec<Outcome> },
    Delete { reason: Deleted },
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such schedule")]
    NotFound,
    #[error("this schedule exists already")]
    AlreadyExists,
    #[error("this is not the time that comes next")]
    NotDue,
    #[error("the run before is not over")]
    StillRunning,
    #[error("this is not the run that is open")]
    NotThisRun,
}

/// A schedule as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupSchedule {
    #[default]
    Absent,
    Live(Box<Live>),
    Deleted,
}

/// A schedule that may fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub owner: UserId,
    /// `None`: all applications that the owner has when it fires.
    pub application: Option<ApplicationId>,
    pub settings: Settings,
    /// When it fires next.
    pub next: Option<i64>,
    /// The time whose run is not over.
    pub running: Option<i64>,
}

impl BackupSchedule {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Absent, Command::Create(mut created)) => {
                created.next = created.next.filter(|_| created.settings.enabled);
                Ok(vec![Event::Created(created)])
            }
            (Self::Live(_) | Self::Deleted, Command::Create(_)) => Err(Error::AlreadyExists),
            // Deleting twice is no error; nothing else can be asked of what is gone.
            (Self::Deleted, Command::Delete { .. }) => Ok(vec![]),
            (Self::Absent | Self::Deleted, _) => Err(Error::NotFound),
            (Self::Live(live), command) => live.decide(command),
        }
    }

    /// What is known of it while it is there.
    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Absent | Self::Deleted => None,
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Created(created)) => {
                let Created { owner, application, settings, next } = *created;
                Self::Live(Box::new(Live { owner, application, settings, next, running: None }))
            }
            (_, Event::Deleted { .. }) => Self::Deleted,
            (Self::Live(live), event) => Self::Live(Box::new(live.evolve(event))),
            (state @ (Self::Absent | Self::Deleted), _) => state,
        }
    }
}

impl Live {
    fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::Create(_) => Err(Error::AlreadyExists),
            Command::Change { settings, next } => {
                let next = next.filter(|_| settings.enabled);
                let same = self.settings == settings && self.next == next;
                Ok(if same { vec![] } else { vec![Event::Changed { settings, next }] })
            }
            Command::Fire { due, next } => {
                self.comes(due, next)?;
                match self.running {
                    Some(_) => Err(Error::StillRunning),
                    None => Ok(vec![Event::Fired { due, next }]),
                }
            }
            Command::PassOver { due, next, reason } => {
                self.comes(due, next)?;
                Ok(vec![Event::PassedOver { due, next, reason }])
            }
            Command::EndRun { due, outcomes } if self.running == Some(due) => {
                Ok(vec![Event::RunEnded { due, outcomes }])
            }
            Command::EndRun { .. } => Err(Error::NotThisRun),
            Command::Delete { reason } => Ok(vec![Event::Deleted { reason }]),
        }
    }

    /// Only the time that comes next can be dealt with, and only a later one can follow it.
    fn comes(&self, due: i64, next: Option<i64>) -> Result<(), Error> {
        let is_next = self.next == Some(due) && next.is_none_or(|next| next > due);
        if is_next { Ok(()) } else { Err(Error::NotDue) }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Changed { settings, next } => {
                self.settings = settings;
                self.next = next;
            }
            Event::Fired { due, next } => {
                self.next = next;
                self.running = Some(due);
            }
            Event::PassedOver { due: _, next, reason: _ } => self.next = next,
            Event::RunEnded { .. } => self.running = None,
            Event::Created(_) | Event::Deleted { .. } => {}
        }
        self
    }
}

impl Aggregate for BackupSchedule {
    const TYPE: &'static str = "backup_schedule";
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
