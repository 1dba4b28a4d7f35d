//! Accepted calls that left no other event: what changed nothing, and what was answered again.
//!
//! There is no aggregate: nothing is decided by these streams, they are only read by the audit.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The streams' type; an id is `<caller>/<what>/<minutes since 1970>`.
pub const STREAM: &str = "call";

/// A stream's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// What was asked for was so already.
    ChangedNothing(Counted),
    /// The first answer under an idempotency key was given again.
    Repeated(Counted),
}

/// How often it happened within a minute, the first few times each by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// `user/7`, `anonymous/192.0.2.7`, or `others` when there were too many to tell apart.
    pub caller: String,
    pub times: u64,
    /// The routes that were called, the first few.
    pub calls: Vec<String>,
    /// The paths that were called, the first few.
    pub paths: Vec<String>,
    /// The address that it came from last.
    pub source: Option<String>,
    /// What was shown, the first few: `session/…`, `token/…`.
    pub credentials: Vec<String>,
    /// The request, the last one of several.
    pub requests: Vec<String>,
    /// The requests whose answers were given again, the first few.
    pub firsts: Vec<String>,
    /// µs since 1970.
    pub first_at: i64,
    /// µs since 1970.
    pub last_at: i64,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::ChangedNothing(_) => "call.changed_nothing",
            Self::Repeated(_) => "call.repeated",
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
    fn a_call_that_left_nothing_else_is_stored_as_promised() {
        let counted = Counted {
            caller: "user/7".into(),
            times: 1,
            calls: vec!["Patch /api/auth/user".into()],
            paths: vec!["/api/auth/user".into()],
            source: Some("192.0.2.7".into()),
            credentials: vec!["session/0b8e5f1c-6a3d-4c7e-9f20-1d5a7b3c9e4f".into()],
            requests: vec!["0197f3a2".into()],
            firsts: vec![],
            first_at: 1_700_000_000_000_000,
            last_at: 1_700_000_030_000_000,
        };
        crate::fixture::assert_stored_as_promised(&Event::ChangedNothing(counted.clone()));
        let repeated = Counted { firsts: vec!["0197f3a1".into()], ..counted };
        crate::fixture::assert_stored_as_promised(&Event::Repeated(repeated));
    }
}
