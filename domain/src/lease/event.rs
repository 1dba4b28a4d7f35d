//! What has happened to a leased thing: a stored promise, with a fixture per version.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::value::{ApplicationId, HostId, OperationId, UserId};

/// A lease's events; the aggregate's id is the thing itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Acquired {
        holder: Holder,
    },
    Released {
        holder: Holder,
    },
    /// Given back, but not to be leased again before this moment (µs since 1970) and a second look.
    Quarantined {
        holder: Holder,
        until: i64,
        reason: String,
    },
    /// The quarantine is over: a second look found it absent.
    Cleared,
    /// Something that is not ours sits on it.
    FoundForeign {
        reason: String,
    },
}

/// Who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    Application(ApplicationId),
    Operation(OperationId),
    User(UserId),
    Host(HostId),
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Acquired { .. } => "lease.acquired",
            Self::Released { .. } => "lease.released",
            Self::Quarantined { .. } => "lease.quarantined",
            Self::Cleared => "lease.cleared",
            Self::FoundForeign { .. } => "lease.found_foreign",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
