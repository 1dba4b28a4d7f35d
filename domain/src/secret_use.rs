//! Which secrets were opened, counted: a minute of one record's uses by one actor is one event.
//!
//! There is no aggregate: nothing is decided by these streams, they are only read by the audit.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

/// The streams' type; an id is `<table>/<record>/<minutes since 1970>`.
pub const STREAM: &str = "secret_use";

/// A stream's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Counted(Counted),
}

/// How often secrets of one record were opened within a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// What kind of record they belong to: `host_connections`, `applications`.
    pub table: String,
    /// Its id.
    pub record: String,
    /// Which of its secrets, the first few: `credential`, or names of environment variables.
    pub names: Vec<String>,
    pub times: u64,
    /// Who opened them, e.g. `user/7`; not told before version 2.
    #[serde(default)]
    pub actors: Vec<String>,
    /// µs since 1970.
    pub first_at: i64,
    /// µs since 1970.
    pub last_at: i64,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Counted(_) => "secret_use.counted",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        // The first version did not say who opened them.
        "2".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_use_is_stored_as_promised() {
        crate::fixture::assert_stored_as_promised(&Event::Counted(Counted {
            table: "applications".into(),
            record: "nginx-0a1b2c3d".into(),
            names: vec!["ADMIN_PASSWORD".into()],
            times: 2,
            actors: vec!["user/7".into()],
            first_at: 1_700_000_000_000_000,
            last_at: 1_700_000_030_000_000,
        }));
    }

    #[test]
    fn a_use_that_was_counted_before_it_said_who_can_still_be_read() {
        let Event::Counted(counted) =
            serde_json::from_str(include_str!("../fixtures/events/secret_use.counted.v1.json"))
                .expect("the first version can be read");
        assert_eq!((counted.times, counted.actors.len()), (2, 0));
    }
}
