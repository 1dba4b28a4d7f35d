//! What administrators did that changes nothing in the log itself, such as testing a connection.
//!
//! There is no aggregate: nothing is decided by these streams, they are only read by the audit.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The streams' type; an id is the request's.
pub const STREAM: &str = "admin_action";

/// A stream's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// `call` is the route, `path` what was called.
    Performed { call: String, path: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Performed { .. } => "admin_action.performed",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_performed_action_is_stored_as_promised() {
        crate::fixture::assert_stored_as_promised(&Event::Performed {
            call: "Post /api/proxmox/hosts/{id}/test".into(),
            path: "/api/proxmox/hosts/1/test".into(),
        });
    }
}
