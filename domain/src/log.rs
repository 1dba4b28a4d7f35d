//! The log's own life: restored from a backup, and confirmed by a person before anything is done again.
//!
//! ```text
//! its own ──restored──▶ observing ──confirmed──▶ its own
//! ```

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

/// The one stream of this kind.
pub const STREAM: &str = "log";

/// What can be asked of the log. That it was restored is written by the restoration itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A person has looked at what differs: the program may act again.
    ConfirmRestore,
}

/// Why that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("this log was not restored from a backup, or that was confirmed already")]
    NothingToConfirm,
}

/// Whether the program may act by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Log {
    /// Nothing stands between the log and what it records.
    #[default]
    InUse,
    /// It was restored, and what exists may have gone on since the backup: it only looks.
    Observing(Restored),
    /// A restoration was confirmed.
    Confirmed(Restored),
}

impl Log {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Observing(restored), Command::ConfirmRestore) => {
                Ok(vec![Event::RestoreConfirmed { incarnation: restored.incarnation }])
            }
            (Self::InUse | Self::Confirmed(_), Command::ConfirmRestore) => {
                Err(Error::NothingToConfirm)
            }
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Restored(restored)) => Self::Observing(restored),
            (Self::Observing(restored), Event::RestoreConfirmed { .. }) => {
                Self::Confirmed(restored)
            }
            (other, Event::RestoreConfirmed { .. }) => other,
        }
    }

    /// The restoration that waits for a person.
    pub fn observing(&self) -> Option<&Restored> {
        match self {
            Self::Observing(restored) => Some(restored),
            Self::InUse | Self::Confirmed(_) => None,
        }
    }
}

impl Aggregate for Log {
    const TYPE: &'static str = "log";
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
