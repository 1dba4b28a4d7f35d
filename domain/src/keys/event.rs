//! What has happened to the master key: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The keys' events; stream `keys/keys`. A generation is its short name in the key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// `generation` seals from now on; what is under the replaced ones is being sealed anew.
    RotationBegan { generation: String, replaced: Vec<String> },
    /// Nothing is under the replaced ones any more.
    Rotated { generation: String, replaced: Vec<String>, secrets: u64 },
    /// Its holders were told to forget it.
    Destroyed { generation: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::RotationBegan { .. } => "keys.rotation_began",
            Self::Rotated { .. } => "keys.rotated",
            Self::Destroyed { .. } => "keys.destroyed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
