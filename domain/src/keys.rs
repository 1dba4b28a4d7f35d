//! The generations of the master key: which one seals, which ones were replaced, which are no more.
//!
//! ```text
//! (first) ──rotation began──▶ two at once ──rotated──▶ replaced ──destroyed──▶ gone
//! ```
//!
//! The keys themselves are never in the log, only their short names.

mod event;
#[cfg(test)]
mod tests;

pub use event::*;

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

/// The one stream of this kind.
pub const STREAM: &str = "keys";

/// What can be asked of the generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// From now on `generation` seals; what `replaced` sealed is sealed anew.
    BeginRotation { generation: String, replaced: Vec<String> },
    /// Nothing is under the replaced generations any more; so many secrets were sealed anew.
    FinishRotation { generation: String, replaced: Vec<String>, secrets: u64 },
    /// Every holder forgets this generation.
    Destroy { generation: String },
}

/// Why that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("key generation {0} seals at present: rotate first")]
    InUse(String),
    #[error("key generation {0} is not known")]
    Unknown(String),
    #[error("key generation {0} was destroyed")]
    Destroyed(String),
}

/// What became of the generations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The one that seals; `None` before the first rotation, when there is only one.
    pub current: Option<String>,
    /// Sealed with once, and not yet free of secrets.
    pub leaving: BTreeSet<String>,
    /// Nothing is under them; they still open old backups.
    pub replaced: BTreeSet<String>,
    /// No holder has them any more.
    pub destroyed: BTreeSet<String>,
}

impl Keys {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::BeginRotation { generation, .. } if self.destroyed.contains(&generation) => {
                Err(Error::Destroyed(generation))
            }
            Command::BeginRotation { generation, .. }
                if self.current.as_ref() == Some(&generation) =>
            {
                Ok(vec![])
            }
            Command::BeginRotation { generation, replaced } => {
                Ok(vec![Event::RotationBegan { generation, replaced }])
            }
            Command::FinishRotation { generation, .. }
                if self.current.as_ref() != Some(&generation) =>
            {
                Err(Error::Unknown(generation))
            }
            Command::FinishRotation { .. } if self.leaving.is_empty() => Ok(vec![]),
            Command::FinishRotation { generation, replaced, secrets } => {
                Ok(vec![Event::Rotated { generation, replaced, secrets }])
            }
            Command::Destroy { generation } if self.destroyed.contains(&generation) => Ok(vec![]),
            Command::Destroy { generation }
                if self.current.as_ref() == Some(&generation)
                    || self.leaving.contains(&generation) =>
            {
                Err(Error::InUse(generation))
            }
            Command::Destroy { generation } if self.replaced.contains(&generation) => {
                Ok(vec![Event::Destroyed { generation }])
            }
            Command::Destroy { generation } => Err(Error::Unknown(generation)),
        }
    }

    /// Folds one past event.
    pub fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::RotationBegan { generation, replaced } => {
                self.leaving.extend(replaced);
                self.leaving.extend(self.current.take());
                self.leaving.remove(&generation);
                self.replaced.remove(&generation);
                self.current = Some(generation);
            }
            Event::Rotated { replaced, .. } => {
                for generation in replaced {
                    self.leaving.remove(&generation);
                    self.replaced.insert(generation);
                }
            }
            Event::Destroyed { generation } => {
                self.replaced.remove(&generation);
                self.destroyed.insert(generation);
            }
        }
        self
    }
}

impl Aggregate for Keys {
    const TYPE: &'static str = "keys";
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
