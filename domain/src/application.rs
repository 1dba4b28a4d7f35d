//! The application aggregate: one container that someone asked for, and what runs on it now.
//!
//! ```text
//! absent ──request──▶ deploying ──complete──▶ running ◀──start──┐
//!                        │fail                 │ └──stop──▶ stopped
//!                        ▼                     │delete          │delete
//!                      failed ──delete──▶ removed ◀─────────────┘
//! ```
//! One operation at a time: while one runs or is stuck, every other is refused. What a look at Proxmox
//! finds changes it only between operations.

mod command;
mod error;
mod event;
#[cfg(test)]
mod tests;

pub use command::{Command, Sighting};
pub use error::Error;
pub use event::*;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::plan::Kind;
use crate::value::{OperationId, UserId};

/// An application as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Application {
    #[default]
    Absent,
    Live(Box<Live>),
    /// Its deployment was undone or given up: it holds nothing.
    Failed(Box<Failed>),
    Removed,
}

/// An application that holds its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// As asked for, with the guest's number as it is now.
    pub requested: Requested,
    pub running: bool,
    /// Whether the operation that makes it has ended well.
    pub complete: bool,
    /// Its container was not there when last looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    pub current: Option<Current>,
}

/// An application without anything, kept so that its owner can see why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub owner: UserId,
    pub problem: String,
    pub current: Option<Current>,
}

/// The operation that an application is reserved for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    pub operation: OperationId,
    pub kind: Kind,
    pub stuck: bool,
}

impl Application {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::Request(requested) => match self {
                Self::Absent => Ok(vec![Event::Requested(requested)]),
                Self::Live(_) | Self::Failed(_) | Self::Removed => Err(Error::AlreadyExists),
            },
            Command::BeginOperation { operation, kind } => self.begin(operation, kind, true),
            Command::BeginUnseen { operation, kind } => self.begin(operation, kind, false),
            Command::CompleteDeployment { operation, address } => {
                self.ending(operation, Event::Deployed { operation, address })
            }
            Command::FailDeployment { operation, problem } => {
                self.ending(operation, Event::DeploymentFailed { operation, problem })
            }
            Command::FinishClone { operation, address, running } => {
                self.ending(operation, Event::CloneReady { operation, address, running })
            }
            Command::FinishAdoption { operation, address, running } => {
                self.ending(operation, Event::Adopted { operation, address, running })
            }
            Command::NoteCloned { operation, into, running } => {
                self.ending(operation, Event::Cloned { operation, into, running })
            }
            Command::ReplaceVmid { operation, to } => {
                let from = self.live_under(operation)?.requested.guest.vmid;
                Ok(vec![Event::VmidReplaced { operation, from, to }])
            }
            Command::FinishStart { operation, address } => {
                self.ending(operation, Event::Started { operation, address })
            }
            Command::FinishStop { operation } => {
                self.ending(operation, Event::Stopped { operation })
            }
            Command::FinishRestart { operation, address } => {
                self.ending(operation, Event::Restarted { operation, address })
            }
            Command::FinishRemoval { operation } => {
                self.ending(operation, Event::Removed { operation })
            }
            Command::SwapGuest { operation, to } => {
                let from = self.live_under(operation)?.requested.guest.clone();
                let swapped = from == to; // a retry
                let event = Event::GuestSwapped { operation, from, to };
                Ok(if swapped { vec![] } else { vec![event] })
            }
            Command::FinishRestore { operation, backup, address, running } => {
                self.ending(operation, Event::Restored { operation, backup, address, running })
            }
            Command::EndOperation { operation, running } => {
                let kind = self.current_under(operation)?.kind;
                Ok(vec![Event::OperationEnded { operation, kind, running }])
            }
            Command::FailOperation { operation, problem, running } => {
                let kind = self.current_under(operation)?.kind;
                Ok(vec![Event::OperationFailed { operation, kind, problem, running }])
            }
            Command::MarkStuck { operation, problem } => {
                let already = self.current_under(operation)?.stuck;
                let event = Event::OperationStuck { operation, problem };
                Ok(if already { vec![] } else { vec![event] })
            }
            Command::Abandon { operation, problem, running } => {
                self.ending(operation, Event::OperationAbandoned { operation, problem, running })
            }
            Command::Observe(sighting) => Ok(self.observe(sighting).into_iter().collect()),
            Command::NoteProtected { operation } => {
                let noted = self.settled().map(|_| Event::Protected { operation });
                Ok(noted.into_iter().collect())
            }
        }
    }

    /// What a look says that is not recorded yet.
    fn observe(&self, sighting: Sighting) -> Option<Event> {
        let live = self.settled()?;
        match sighting {
            Sighting::Present { node, running, address } => {
                let known = live.lost.is_none()
                    && live.running == running
                    && live.requested.guest.node == node;
                (!known).then_some(Event::Observed { node, running, address })
            }
            Sighting::Missing(loss) => (live.lost != Some(loss)).then_some(Event::Lost(loss)),
        }
    }

    /// What it is while its container is its own affair: complete, and no operation runs.
    fn settled(&self) -> Option<&Live> {
        self.live().filter(|live| live.complete && live.current.is_none())
    }

    /// `seen`: what is recorded of its container is taken for so.
    fn begin(&self, operation: OperationId, kind: Kind, seen: bool) -> Result<Vec<Event>, Error> {
        let began = || Ok(vec![Event::OperationBegan { operation, kind }]);
        match self.current() {
            Some(current) if current.operation == operation => return Ok(vec![]),
            Some(&Current { operation, kind, stuck: true }) => {
                return Err(Error::Stuck { operation, kind });
            }
            Some(current) => return Err(Error::Busy { operation: current.operation }),
            None => {}
        }
        match self {
            Self::Absent | Self::Removed => Err(Error::NotFound),
            Self::Live(live) => match kind {
                Kind::Start if live.running && seen => Ok(vec![]), // repeating is not an error
                Kind::Stop if !live.running && seen => Ok(vec![]),
                Kind::Start | Kind::Restart | Kind::Clone | Kind::Backup if live.lost.is_some() => {
                    Err(Error::Lost)
                }
                Kind::Restart if !live.running => Err(Error::NotRunning),
                Kind::Start | Kind::Stop | Kind::Restart | Kind::Delete | Kind::Clone => began(),
                Kind::Backup | Kind::BackupDelete | Kind::Restore => began(),
                Kind::Deploy | Kind::Adopt => Err(Error::AlreadyExists),
            },
            Self::Failed(_) => match kind {
                Kind::Delete | Kind::BackupDelete => began(),
                Kind::Deploy
                | Kind::Start
                | Kind::Stop
                | Kind::Restart
                | Kind::Clone
                | Kind::Backup
                | Kind::Restore
                | Kind::Adopt => Err(Error::OnlyDeletable),
            },
        }
    }

    /// The event that ends the running operation, if it is this one.
    fn ending(&self, operation: OperationId, event: Event) -> Result<Vec<Event>, Error> {
        self.current_under(operation).map(|_| vec![event])
    }

    fn current_under(&self, operation: OperationId) -> Result<&Current, Error> {
        match self.current() {
            Some(current) if current.operation == operation => Ok(current),
            Some(_) | None => Err(Error::NotThisOperation),
        }
    }

    fn live_under(&self, operation: OperationId) -> Result<&Live, Error> {
        self.current_under(operation)?;
        self.live().ok_or(Error::NotThisOperation)
    }

    /// The operation it is reserved for.
    pub fn current(&self) -> Option<&Current> {
        match self {
            Self::Live(live) => live.current.as_ref(),
            Self::Failed(failed) => failed.current.as_ref(),
            Self::Absent | Self::Removed => None,
        }
    }

    /// What it is while it holds its leases.
    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Absent | Self::Failed(_) | Self::Removed => None,
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Requested(requested)) => {
                let kind = requested.origin.kind();
                let current = Current { operation: requested.operation, kind, stuck: false };
                Self::Live(Box::new(Live {
                    requested: *requested,
                    running: false,
                    complete: false,
                    lost: None,
                    current: Some(current),
                }))
            }
            (_, Event::Removed { .. }) => Self::Removed,
            (Self::Live(live), event) => live.evolve(event),
            (Self::Failed(failed), event) => Self::Failed(Box::new(failed.evolve(event))),
            (state @ (Self::Absent | Self::Removed), _) => state,
        }
    }
}

impl Live {
    fn evolve(mut self, event: Event) -> Application {
        match event {
            Event::Deployed { .. } | Event::Started { .. } | Event::Restarted { .. } => {
                self.running = true;
                self.complete = true;
                self.current = None;
            }
            Event::CloneReady { running, .. }
            | Event::Adopted { running, .. }
            | Event::Cloned { running, .. } => {
                self.running = running;
                self.complete = true;
                self.current = None;
            }
            Event::Stopped { .. } => {
                self.running = false;
                self.current = None;
            }
            Event::OperationFailed { running, .. } | Event::OperationEnded { running, .. } => {
                self.running = running;
                self.current = None;
            }
            Event::VmidReplaced { to, .. } => self.requested.guest.vmid = to,
            Event::GuestSwapped { to, .. } => {
                self.requested.guest = to;
                self.lost = None;
            }
            Event::Restored { running, .. } => {
                self.running = running;
                self.lost = None;
                self.current = None;
            }
            Event::Observed { node, running, .. } => {
                self.requested.guest.node = node;
                self.running = running;
                self.lost = None;
            }
            Event::Lost(loss) => {
                self.running = false;
                self.lost = Some(loss);
            }
            Event::OperationBegan { operation, kind } => {
                self.current = Some(Current { operation, kind, stuck: false });
            }
            Event::OperationStuck { .. } => {
                self.current = self.current.map(|current| Current { stuck: true, ..current });
            }
            Event::DeploymentFailed { problem, .. } => return self.failed(problem),
            Event::OperationAbandoned { problem, running, .. } => {
                self.running = running.unwrap_or(self.running);
                let removed = self.current.take().is_some_and(|last| last.kind == Kind::Delete);
                if removed || !self.complete {
                    return self.failed(problem);
                }
            }
            Event::Requested(_) | Event::Protected { .. } | Event::Removed { .. } => {}
        }
        Application::Live(Box::new(self))
    }

    fn failed(self, problem: String) -> Application {
        let owner = self.requested.owner;
        Application::Failed(Box::new(Failed { owner, problem, current: None }))
    }
}

impl Failed {
    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::OperationBegan { operation, kind } => {
                self.current = Some(Current { operation, kind, stuck: false });
            }
            Event::OperationStuck { .. } => {
                self.current = self.current.map(|current| Current { stuck: true, ..current });
            }
            Event::OperationFailed { problem, .. } | Event::OperationAbandoned { problem, .. } => {
                self.problem = problem;
                self.current = None;
            }
            Event::OperationEnded { .. } => self.current = None,
            Event::Requested(_)
            | Event::Deployed { .. }
            | Event::CloneReady { .. }
            | Event::Cloned { .. }
            | Event::Adopted { .. }
            | Event::DeploymentFailed { .. }
            | Event::VmidReplaced { .. }
            | Event::GuestSwapped { .. }
            | Event::Restored { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Restarted { .. }
            | Event::Observed { .. }
            | Event::Lost(_)
            | Event::Protected { .. }
            | Event::Removed { .. } => {}
        }
        self
    }
}

impl Aggregate for Application {
    const TYPE: &'static str = "application";
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
