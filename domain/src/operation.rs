//! The operation aggregate: a plan, the steps that carry it out, and the way back.
//!
//! ```text
//! planned ──▶ running ──complete──▶ done
//!                │unwind                 ▲resume
//!                ▼                       │
//!            unwinding ──▶ undone      stuck ──abandon──▶ abandoned
//! ```
//! Either direction can get stuck. The state says which move is next; who makes it, and how often a
//! failed one is tried again, is the runner's business.

mod event;
mod progress;
#[cfg(test)]
mod tests;

pub use event::*;
pub use progress::{Attempt, Move, Phase, Progress};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::value::{ApplicationId, UserId};

/// What can be asked of an operation. Moments are µs since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Plan {
        application: ApplicationId,
        owner: UserId,
        plan: Box<Plan>,
        steps: Vec<String>,
        deadline: i64,
    },
    IntendStep {
        step: String,
        direction: Direction,
        stood: Option<Volumes>,
        site: Option<Site>,
    },
    NoteTask {
        step: String,
        direction: Direction,
        upid: String,
    },
    SucceedStep {
        step: String,
        direction: Direction,
        found: Option<Finding>,
    },
    FailStep {
        step: String,
        direction: Direction,
        failure: Failure,
        retry_at: Option<i64>,
    },
    ChangePlan {
        plan: Box<Plan>,
        reason: String,
    },
    Cancel {
        by: UserId,
        reason: String,
    },
    /// Refused from the intent of a step that cannot be taken back on.
    Unwind {
        reason: String,
        past_pivot: bool,
    },
    Complete,
    FinishUndo,
    GetStuck {
        step: String,
        direction: Direction,
        reason: String,
        instructions: String,
    },
    Resume {
        by: UserId,
        note: String,
    },
    Abandon {
        by: UserId,
        note: String,
    },
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such operation")]
    NotFound,
    #[error("this operation is planned already")]
    AlreadyPlanned,
    #[error("this operation has ended")]
    Ended,
    #[error("this operation is not stuck")]
    NotStuck,
    #[error("this operation is stuck: resume or abandon it")]
    IsStuck,
    #[error("this operation can no longer be taken back")]
    PastPivot,
    #[error("this is not the operation's next move")]
    NotNext,
}

/// An operation as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    #[default]
    Absent,
    Active(Box<Progress>),
    Done,
    Undone,
    Abandoned,
}

impl Operation {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Absent, Command::Plan { application, owner, plan, steps, deadline }) => {
                Ok(vec![Event::Planned { application, owner, plan: *plan, steps, deadline }])
            }
            (Self::Absent, _) => Err(Error::NotFound),
            (_, Command::Plan { .. }) => Err(Error::AlreadyPlanned),
            (Self::Active(progress), command) => progress.decide(command),
            (Self::Done | Self::Undone | Self::Abandoned, _) => Err(Error::Ended),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Planned { application, owner, plan, steps, deadline }) => {
                Self::Active(Box::new(Progress::new(application, owner, plan, steps, deadline)))
            }
            (Self::Active(_), Event::Completed) => Self::Done,
            (Self::Active(_), Event::Undone { .. }) => Self::Undone,
            (Self::Active(_), Event::Abandoned { .. }) => Self::Abandoned,
            (Self::Active(progress), event) => Self::Active(Box::new(progress.evolve(event))),
            (state @ (Self::Absent | Self::Done | Self::Undone | Self::Abandoned), _) => state,
        }
    }

    /// Where it stands while it has not ended.
    pub fn progress(&self) -> Option<&Progress> {
        match self {
            Self::Active(progress) => Some(progress),
            Self::Absent | Self::Done | Self::Undone | Self::Abandoned => None,
        }
    }
}

impl Aggregate for Operation {
    const TYPE: &'static str = "operation";
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
