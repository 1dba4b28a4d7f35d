//! What has happened to the deployment defaults: a stored promise, with a fixture per version.

use serde::{Deserialize, Serialize};

use crate::value::{NetworkSettings, Resources};

/// The settings' events; streams `settings/resources` and `settings/network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    ResourcesChanged { resources: Resources },
    NetworkChanged { network: NetworkSettings },
}
