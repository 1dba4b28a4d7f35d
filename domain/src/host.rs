//! The host aggregate: a registered Proxmox VE cluster or lone node.
//!
//! ```text
//! absent ──register──▶ registered ──suspend──▶ suspended ──change (active)──▶ registered
//!                          └──────────remove──────┴──▶ removed
//! ```

mod event;
mod fingerprint;
#[cfg(test)]
mod tests;

pub use event::*;
pub use fingerprint::Fingerprint;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::value::ClusterName;

/// What can be asked of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Register { connection: Connection, cluster: ClusterName, is_default: bool },
    Change { connection: Connection, is_active: bool, is_default: bool },
    ObserveNodes { nodes: Vec<ObservedNode> },
    ReportDiscrepancies { discrepancies: Vec<Discrepancy> },
    Suspend { reason: String },
    Remove,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such host")]
    NotFound,
    #[error("this host id is taken")]
    AlreadyRegistered,
    #[error("a host that is not active cannot be the default one")]
    DefaultMustBeActive,
}

/// A host as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    #[default]
    Absent,
    Registered(Box<Registration>),
    Removed,
}

/// A registered host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub connection: Connection,
    /// Which cluster it was registered for; never changes.
    pub cluster: ClusterName,
    pub is_active: bool,
    pub is_default: bool,
    /// Sorted by name.
    pub nodes: Vec<ObservedNode>,
    /// What a person has to look at, sorted.
    #[serde(default)]
    pub discrepancies: Vec<Discrepancy>,
    /// Why nothing is sent to it until an admin has looked.
    pub suspended: Option<String>,
}

impl Host {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Absent, Command::Register { connection, cluster, is_default }) => {
                Ok(vec![Event::Registered { connection, cluster, is_default }])
            }
            (Self::Registered(_) | Self::Removed, Command::Register { .. }) => {
                Err(Error::AlreadyRegistered)
            }
            (Self::Absent | Self::Removed, _) => Err(Error::NotFound),
            (_, Command::Change { is_active: false, is_default: true, .. }) => {
                Err(Error::DefaultMustBeActive)
            }
            (Self::Registered(host), Command::Change { connection, is_active, is_default }) => {
                let same = host.connection == connection
                    && host.is_active == is_active
                    && host.is_default == is_default
                    && host.suspended.is_none();
                Ok(unless(same, Event::Changed { connection, is_active, is_default }))
            }
            (Self::Registered(host), Command::ObserveNodes { nodes }) => {
                let nodes = sorted(nodes);
                let same = host.nodes.len() == nodes.len()
                    && host.nodes.iter().zip(&nodes).all(|(old, new)| old.is_like(new));
                Ok(unless(same, Event::NodesObserved { nodes }))
            }
            (Self::Registered(host), Command::ReportDiscrepancies { mut discrepancies }) => {
                discrepancies.sort();
                let same = host.discrepancies == discrepancies;
                Ok(unless(same, Event::DiscrepanciesObserved { discrepancies }))
            }
            (Self::Registered(host), Command::Suspend { reason }) => {
                Ok(unless(host.suspended.is_some(), Event::Suspended { reason }))
            }
            (Self::Registered(_), Command::Remove) => Ok(vec![Event::Removed]),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Registered { connection, cluster, is_default }) => {
                Self::Registered(Box::new(Registration {
                    connection,
                    cluster,
                    is_active: true,
                    is_default,
                    nodes: Vec::new(),
                    discrepancies: Vec::new(),
                    suspended: None,
                }))
            }
            (Self::Registered(host), event) => match event {
                Event::Changed { connection, is_active, is_default } => {
                    // An admin who leaves it active has looked at why it was suspended.
                    let suspended = if is_active { None } else { host.suspended };
                    let changed =
                        Registration { connection, is_active, is_default, suspended, ..*host };
                    Self::Registered(Box::new(changed))
                }
                Event::NodesObserved { nodes } => {
                    Self::Registered(Box::new(Registration { nodes, ..*host }))
                }
                Event::DiscrepanciesObserved { discrepancies } => {
                    Self::Registered(Box::new(Registration { discrepancies, ..*host }))
                }
                Event::Suspended { reason } => {
                    Self::Registered(Box::new(Registration { suspended: Some(reason), ..*host }))
                }
                Event::Removed => Self::Removed,
                Event::Registered { .. } => Self::Registered(host),
            },
            (state @ (Self::Absent | Self::Removed), _) => state,
        }
    }

    /// What is known of it while it is registered.
    pub fn registration(&self) -> Option<&Registration> {
        match self {
            Self::Registered(registration) => Some(registration),
            Self::Absent | Self::Removed => None,
        }
    }
}

impl ObservedNode {
    /// Whether nothing differs that is worth an event: totals wobble, names and states do not.
    fn is_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.online == other.online
            && self.version == other.version
            && self.cores == other.cores
            && self.memory_total.is_some() == other.memory_total.is_some()
            && self.disk_total.is_some() == other.disk_total.is_some()
    }
}

fn sorted(mut nodes: Vec<ObservedNode>) -> Vec<ObservedNode> {
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// "Already so" is no event.
fn unless(already: bool, event: Event) -> Vec<Event> {
    if already { Vec::new() } else { vec![event] }
}

impl Aggregate for Host {
    const TYPE: &'static str = "host";
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
