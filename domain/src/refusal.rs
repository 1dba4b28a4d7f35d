//! What was refused, counted: a minute of one caller's refusals with one code is a handful of events.
//!
//! There is no aggregate: nothing is decided by these streams, they are only read by the audit.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The streams' type; an id is `<caller>/<code>/<minutes since 1970>`.
pub const STREAM: &str = "refusal";

/// A refusal stream's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Counted(Counted),
}

/// How often something was refused within a minute, the first few times each by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// `user/7`, `anonymous/192.0.2.7`, or `others` when there were too many to tell apart.
    pub caller: String,
    /// The code of the refusal, e.g. `login.failed`.
    pub code: String,
    pub times: u64,
    /// What was asked for, e.g. `user.login`.
    pub commands: Vec<String>,
    /// Accounts that were tried, the first few: `user/7`, or a keyed hash of a name nobody has.
    pub accounts: Vec<String>,
    /// The address that it came from last.
    pub source: Option<String>,
    /// What was shown, the first few: `session/…`, `token/…`.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// The request that was refused, the last one of several; up to version 2 the first few.
    #[serde(default)]
    pub requests: Vec<String>,
    /// The paths that were called, the first few.
    #[serde(default)]
    pub paths: Vec<String>,
    /// µs since 1970.
    pub first_at: i64,
    /// µs since 1970.
    pub last_at: i64,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Counted(_) => "refusal.counted",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        // The first version did not name credentials and requests, the second no paths.
        "3".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_refusal_is_stored_as_promised() {
        crate::fixture::assert_stored_as_promised(&Event::Counted(Counted {
            caller: "anonymous/192.0.2.7".into(),
            code: "login.failed".into(),
            times: 3,
            commands: vec!["user.login".into()],
            accounts: vec!["user/7".into()],
            source: Some("192.0.2.7".into()),
            credentials: vec![],
            requests: vec!["0197f3a2".into()],
            paths: vec!["/api/apps/nginx-0a1b2c3d".into()],
            first_at: 1_700_000_000_000_000,
            last_at: 1_700_000_030_000_000,
        }));
    }

    #[test]
    fn a_refusal_that_was_counted_before_it_named_requests_or_paths_can_still_be_read() {
        let v1 = include_str!("../fixtures/events/refusal.counted.v1.json");
        let v2 = include_str!("../fixtures/events/refusal.counted.v2.json");
        for (text, requests) in [(v1, 0), (v2, 1)] {
            let Event::Counted(counted) =
                serde_json::from_str(text).expect("an earlier version can be read");
            assert_eq!((counted.times, counted.requests.len()), (3, requests));
            assert!(counted.paths.is_empty());
        }
    }
}
