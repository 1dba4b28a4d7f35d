//! The settings aggregate: defaults that deployments use; streams `resources` and `network`.

mod event;
mod input;
#[cfg(test)]
mod tests;

pub use event::*;
pub use input::{ResourceDefaultsInput, default_network, default_resources};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::value::{NetworkSettings, Resources};

/// The stream of the resource defaults.
pub const RESOURCES: &str = "resources";
/// The stream of the network defaults.
pub const NETWORK: &str = "network";

/// What can be asked of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    ChangeResources { resources: Resources },
    ChangeNetwork { network: NetworkSettings },
}

/// Nothing that parses is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {}

/// What was set; `None` while the built-in default is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub resources: Option<Resources>,
    pub network: Option<NetworkSettings>,
}

impl Settings {
    /// Judges one command. Setting the built-in default for the first time is a decision, too.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        Ok(match command {
            Command::ChangeResources { resources } if self.resources == Some(resources) => vec![],
            Command::ChangeResources { resources } => vec![Event::ResourcesChanged { resources }],
            Command::ChangeNetwork { network } if self.network.as_ref() == Some(&network) => vec![],
            Command::ChangeNetwork { network } => vec![Event::NetworkChanged { network }],
        })
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match event {
            Event::ResourcesChanged { resources } => Self { resources: Some(resources), ..self },
            Event::NetworkChanged { network } => Self { network: Some(network), ..self },
        }
    }
}

impl Aggregate for Settings {
    const TYPE: &'static str = "settings";
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
