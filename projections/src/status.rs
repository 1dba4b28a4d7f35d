//! How each projection stands: what a person sees, and what a waiting caller watches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proximity_eventstore::Position;
use serde::Serialize;
use utoipa::ToSchema;

/// What a projection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It follows the log.
    Running,
    /// Another version of it is being built; the live rows stand still until the switch.
    Building,
    /// It met an event that it cannot apply, and stays before it.
    Stopped,
    /// A newer version of the program keeps its rows.
    Superseded,
}

/// How a projection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Status {
    /// Of the projection.
    pub name: String,
    /// The version of the live rows.
    pub version: i32,
    /// The last event that its live rows hold.
    pub position: Position,
    /// Events of the log that its live rows do not hold yet.
    pub lag: Position,
    /// What it does.
    pub state: State,
    /// Why it stopped, or what is being built and how far it is.
    pub problem: Option<String>,
    /// What was live before the last switch, and can be switched back to.
    pub previous: Option<Previous>,
}

/// The generation before the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Previous {
    /// The version of its rows.
    pub version: i32,
    /// The last event that its rows hold.
    pub position: Position,
}

/// What the runner of this process knows of one projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub position: Position,
    pub state: State,
    pub problem: Option<String>,
    /// The rows are of this life of the log.
    pub is_ours: bool,
}

/// How long a runner may be held up: a database that is restarted, a lock that another holds.
const LONG: Duration = Duration::from_secs(5);

/// What the runner of this process knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether a runner of this process is at work.
    pub following: bool,
    pub projections: BTreeMap<String, Known>,
    /// Why the runner makes no progress at the moment.
    pub trouble: Option<String>,
    /// Since when.
    pub troubled: Option<Instant>,
}

impl Progress {
    /// Says why the runner makes no progress, or that it does.
    pub fn tell(&mut self, trouble: Option<String>) {
        self.troubled = trouble.as_ref().map(|_| self.troubled.unwrap_or_else(Instant::now));
        self.trouble = trouble;
    }

    /// Whether a runner follows the log, and nothing has held it up for long.
    pub fn moves(&self) -> bool {
        self.following && self.troubled.is_none_or(|since| since.elapsed() < LONG)
    }

    /// Whether all rows hold this position; `None` when some will not get there by waiting.
    pub fn reached(&self, position: Position) -> Option<bool> {
        if !self.following {
            return None;
        }
        // A runner that has just started does not know its checkpoints yet.
        let mut reached = !self.projections.is_empty();
        for known in self.projections.values() {
            if known.position >= position {
                continue;
            }
            if known.state != State::Running {
                return None;
            }
            reached = false;
        }
        Some(reached)
    }

    /// Whether all rows that follow the log hold this position, and none is of another life of it.
    pub fn is_whole_at(&self, position: Position) -> bool {
        let is_whole = |known: &Known| {
            known.is_ours && (known.state != State::Running || known.position >= position)
        };
        !self.projections.is_empty() && self.projections.values().all(is_whole)
    }
}
