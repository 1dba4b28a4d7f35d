//! The run aggregate: what is done when a schedule has fired, application by application.
//!
//! ```text
//! absent ──plan──▶ open ──▶ ended            of each application:
//!
//! waiting ──begin──▶ making ──begin pruning──▶ pruning ──close──▶ closed
//!    │ └─defer─┘        └──close──▶ closed        └─begin pruning─┘
//!    └──close──▶ closed
//! ```
//! A backup or a removal is asked for in the append that says so here: a runner that was killed in
//! between has done both or none, and of two runners one is refused.

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::backup_schedule::Outcome;
use crate::value::{ApplicationId, BackupId, OperationId};

/// What can be asked of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Plan(Box<Planned>),
    /// `until`: how long it is tried when nothing is said about that yet.
    Defer {
        application: ApplicationId,
        reason: String,
        until: i64,
    },
    Begin {
        application: ApplicationId,
        backup: BackupId,
        operation: OperationId,
    },
    BeginPruning {
        application: ApplicationId,
        backup: BackupId,
        operation: OperationId,
    },
    Close {
        outcome: Outcome,
    },
    End,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such run")]
    NotFound,
    #[error("this run is planned already")]
    AlreadyPlanned,
    #[error("a run has at least one application")]
    NoTarget,
    #[error("this run has ended")]
    Ended,
    #[error("this application is no part of the run")]
    NotATarget,
    #[error("this is not what comes next for this application")]
    NotNext,
    #[error("this removal was asked for before")]
    AlreadyAsked,
    #[error("something is still to be done")]
    NotOver,
}

/// A run as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupRun {
    #[default]
    Absent,
    Open(Box<Open>),
    Ended,
}

/// A run in which something is still to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub planned: Planned,
    pub targets: BTreeMap<ApplicationId, Stage>,
}

/// How far one application is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// `until`: it was found occupied, and is tried until then.
    Waiting {
        until: Option<i64>,
    },
    Making {
        backup: BackupId,
        operation: OperationId,
        until: Option<i64>,
    },
    Pruning {
        made: BackupId,
        asked: Vec<BackupId>,
        operation: OperationId,
        until: Option<i64>,
    },
    Closed(Outcome),
}

impl Stage {
    /// Whether an operation of the run works on the application, or did a moment ago.
    pub fn is_at_work(&self) -> bool {
        matches!(self, Self::Making { .. } | Self::Pruning { .. })
    }

    /// Until when it is tried, once it was found occupied.
    pub fn until(&self) -> Option<i64> {
        match self {
            Self::Waiting { until } | Self::Making { until, .. } | Self::Pruning { until, .. } => {
                *until
            }
            Self::Closed(_) => None,
        }
    }
}

impl BackupRun {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Absent, Command::Plan(planned)) if planned.targets.is_empty() => {
                Err(Error::NoTarget)
            }
            (Self::Absent, Command::Plan(planned)) => Ok(vec![Event::Planned(planned)]),
            (Self::Open(_) | Self::Ended, Command::Plan(_)) => Err(Error::AlreadyPlanned),
            (Self::Absent, _) => Err(Error::NotFound),
            (Self::Ended, _) => Err(Error::Ended),
            (Self::Open(open), command) => open.decide(command),
        }
    }

    /// Where it stands while something is to be done.
    pub fn open(&self) -> Option<&Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::Absent | Self::Ended => None,
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Planned(planned)) => {
                let waiting = Stage::Waiting { until: None };
                let targets = planned
                    .targets
                    .iter()
                    .map(|target| (target.clone(), waiting.clone()))
                    .collect();
                Self::Open(Box::new(Open { planned: *planned, targets }))
            }
            (_, Event::Ended) => Self::Ended,
            (Self::Open(open), event) => Self::Open(Box::new(open.evolve(event))),
            (state @ (Self::Absent | Self::Ended), _) => state,
        }
    }
}

impl Open {
    /// Whether nothing is left to be done for any application.
    pub fn is_over(&self) -> bool {
        self.targets.values().all(|stage| matches!(stage, Stage::Closed(_)))
    }

    /// What came of each application, in their order.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let closed = |stage: &Stage| match stage {
            Stage::Closed(outcome) => Some(outcome.clone()),
            Stage::Waiting { .. } | Stage::Making { .. } | Stage::Pruning { .. } => None,
        };
        self.targets.values().filter_map(closed).collect()
    }

    fn stage(&self, application: &ApplicationId) -> Result<&Stage, Error> {
        self.targets.get(application).ok_or(Error::NotATarget)
    }

    fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::Plan(_) => Err(Error::AlreadyPlanned),
            Command::Defer { application, reason, until } => match self.stage(&application)? {
                Stage::Closed(_) => Err(Error::NotNext),
                stage if stage.until().is_some() => Ok(vec![]), // already so: the end does not move
                _ => Ok(vec![Event::Deferred { application, reason, until }]),
            },
            Command::Begin { application, backup, operation } => match self.stage(&application)? {
                Stage::Waiting { .. } => Ok(vec![Event::Began { application, backup, operation }]),
                Stage::Making { .. } | Stage::Pruning { .. } | Stage::Closed(_) => {
                    Err(Error::NotNext)
                }
            },
            Command::BeginPruning { application, backup, operation } => {
                match self.stage(&application)? {
                    Stage::Making { backup: made, .. } if *made == backup => Err(Error::NotNext),
                    Stage::Pruning { made, .. } if *made == backup => Err(Error::NotNext),
                    Stage::Pruning { asked, .. } if asked.contains(&backup) => {
                        Err(Error::AlreadyAsked)
                    }
                    Stage::Making { .. } | Stage::Pruning { .. } => {
                        Ok(vec![Event::PruningBegan { application, backup, operation }])
                    }
                    Stage::Waiting { .. } | Stage::Closed(_) => Err(Error::NotNext),
                }
            }
            Command::Close { outcome } => match self.stage(&outcome.application)? {
                Stage::Closed(_) => Err(Error::NotNext),
                Stage::Waiting { .. } | Stage::Making { .. } | Stage::Pruning { .. } => {
                    Ok(vec![Event::Closed { outcome }])
                }
            },
            Command::End if self.is_over() => Ok(vec![Event::Ended]),
            Command::End => Err(Error::NotOver),
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Deferred { application, reason: _, until: end } => {
                if let Some(
                    Stage::Waiting { until }
                    | Stage::Making { until, .. }
                    | Stage::Pruning { until, .. },
                ) = self.targets.get_mut(&application)
                {
                    *until = Some(end);
                }
            }
            Event::Began { application, backup, operation } => {
                self.targets.insert(application, Stage::Making { backup, operation, until: None });
            }
            Event::PruningBegan { application, backup, operation } => {
                let (made, mut asked) = match self.targets.get(&application) {
                    Some(Stage::Pruning { made, asked, .. }) => (*made, asked.clone()),
                    Some(Stage::Making { backup: made, .. }) => (*made, Vec::new()),
                    // It only follows on one of these.
                    Some(Stage::Waiting { .. } | Stage::Closed(_)) | None => return self,
                };
                asked.push(backup);
                let stage = Stage::Pruning { made, asked, operation, until: None };
                self.targets.insert(application, stage);
            }
            Event::Closed { outcome } => {
                self.targets.insert(outcome.application.clone(), Stage::Closed(outcome));
            }
            Event::Planned(_) | Event::Ended => {}
        }
        self
    }
}

impl Aggregate for BackupRun {
    const TYPE: &'static str = "backup_run";
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
