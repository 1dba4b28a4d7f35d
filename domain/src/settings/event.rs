//! What has happened to the deployment defaults: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::value::{NetworkSettings, Resources};

/// The settings' events; streams `settings/resources` and `settings/network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    ResourcesChanged { resources: Resources },
    NetworkChanged { network: NetworkSettings },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::ResourcesChanged { .. } => "settings.resources_changed",
            Self::NetworkChanged { .. } => "settings.network_changed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
