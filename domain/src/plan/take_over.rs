//! The plans of applications that come from a container that is there already: clones and adoptions.

use serde::{Deserialize, Serialize};

use super::{GuestRef, Health, Holdings};
use crate::value::{ApplicationId, NetworkSettings};

/// Copies an application's container into one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonePlan {
    /// The application that is copied; it is reserved for the operation too.
    pub source: ApplicationId,
    pub source_guest: GuestRef,
    /// The copy's container, on the source's node.
    pub guest: GuestRef,
    pub holdings: Holdings,
    pub way: CloneWay,
    /// Where the copy gets its address from: never from the source.
    pub network: NetworkSettings,
    /// How the copy is judged when it is started.
    pub health: Health,
    /// A caller was shown this very number beforehand: the container gets no other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agreed: bool,
}

/// How a container is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CloneWay {
    /// It is stopped, and its copy stays so.
    Stopped,
    /// It runs on: the copy is made from a snapshot of this name.
    Snapshot { name: String },
    /// It is stopped for the time of the copy, as its owner has allowed.
    Downtime,
}

impl ClonePlan {
    /// Whether the source ran when this was planned: then it runs afterwards, and so does the copy.
    pub fn was_running(&self) -> bool {
        match self.way {
            CloneWay::Stopped => false,
            CloneWay::Snapshot { .. } | CloneWay::Downtime => true,
        }
    }
}

/// Marks a container that someone else made as an application's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptPlan {
    pub guest: GuestRef,
    pub holdings: Holdings,
    /// Digest of the configuration that was captured: another one is not marked.
    pub digest: String,
    /// Whether the container ran when it was captured.
    pub was_running: bool,
}
