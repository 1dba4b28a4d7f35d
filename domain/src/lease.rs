//! The lease aggregate: something that one holder has at a time; its id *is* the thing.
//!
//! ```text
//! free ──acquire──▶ held ──release──▶ free
//!                    ├──quarantine──▶ quarantined ──clear──▶ free
//! (any) ──find foreign──▶ foreign ──clear──▶ free
//! ```

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

/// What can be asked of a lease. Moments are µs since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Acquire {
        holder: Holder,
    },
    Release {
        holder: Holder,
    },
    /// Give it back, but keep it from everyone until then.
    Quarantine {
        holder: Holder,
        until: i64,
        reason: String,
    },
    /// A look at `now` found the thing absent.
    Clear {
        now: i64,
    },
    FindForeign {
        reason: String,
    },
}

/// Why it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it is held by another")]
    Held { by: Holder },
    #[error("it was given back a moment ago and is kept until it is known to be gone")]
    Quarantined { until: i64 },
    #[error("it belongs to something that is not ours")]
    Foreign,
    #[error("only its holder can give it back")]
    NotHolder,
}

/// A lease as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lease {
    #[default]
    Free,
    Held {
        holder: Holder,
    },
    Quarantined {
        until: i64,
    },
    Foreign,
}

impl Lease {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Free, Command::Acquire { holder }) => Ok(vec![Event::Acquired { holder }]),
            (Self::Held { holder: by }, Command::Acquire { holder }) if *by == holder => Ok(vec![]),
            (Self::Held { holder: by }, Command::Acquire { .. }) => {
                Err(Error::Held { by: by.clone() })
            }
            (Self::Quarantined { until }, Command::Acquire { .. }) => {
                Err(Error::Quarantined { until: *until })
            }
            (Self::Foreign, Command::Acquire { .. }) => Err(Error::Foreign),

            (Self::Held { holder: by }, Command::Release { holder }) if *by == holder => {
                Ok(vec![Event::Released { holder }])
            }
            (Self::Held { holder: by }, Command::Quarantine { holder, until, reason })
                if *by == holder =>
            {
                Ok(vec![Event::Quarantined { holder, until, reason }])
            }
            (Self::Held { .. }, Command::Release { .. } | Command::Quarantine { .. }) => {
                Err(Error::NotHolder)
            }
            // Given back already: repeating is no error.
            (
                Self::Free | Self::Quarantined { .. } | Self::Foreign,
                Command::Release { .. } | Command::Quarantine { .. },
            ) => Ok(vec![]),

            (Self::Free, Command::Clear { .. }) => Ok(vec![]),
            (Self::Held { holder }, Command::Clear { .. }) => {
                Err(Error::Held { by: holder.clone() })
            }
            (Self::Quarantined { until }, Command::Clear { now }) if now < *until => {
                Err(Error::Quarantined { until: *until })
            }
            (Self::Quarantined { .. } | Self::Foreign, Command::Clear { .. }) => {
                Ok(vec![Event::Cleared])
            }

            (Self::Foreign, Command::FindForeign { .. }) => Ok(vec![]),
            (
                Self::Free | Self::Held { .. } | Self::Quarantined { .. },
                Command::FindForeign { reason },
            ) => Ok(vec![Event::FoundForeign { reason }]),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match event {
            Event::Acquired { holder } => Self::Held { holder },
            Event::Released { .. } | Event::Cleared => Self::Free,
            Event::Quarantined { until, .. } => Self::Quarantined { until },
            Event::FoundForeign { .. } => Self::Foreign,
        }
    }

    /// Who has it now.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held { holder } => Some(holder),
            Self::Free | Self::Quarantined { .. } | Self::Foreign => None,
        }
    }
}

impl Aggregate for Lease {
    const TYPE: &'static str = "lease";
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
