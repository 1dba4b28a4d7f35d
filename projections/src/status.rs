//! How each projection stands: what a person sees, and what a waiting caller watches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proximity_eventstore::Position;
use serde::Serialize;
use utoipa::ToSchema;

use crate::backend::{Mark, Slot};

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
    /// Why it stopped, what is being built and how far it is, or why its rows are not those of this log.
    pub problem: Option<String>,
    /// Its rows are neither beyond the end of the log nor still being filled after they were begun anew.
    #[serde(skip)]
    pub is_whole: bool,
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

/// After this long without a sign, in µs, a build is said to be silent: its last transaction can be long.
const SILENT: i64 = 30_000_000;

/// All that is known of how the projections stand, by the database and by this process.
pub(crate) struct Stand {
    pub marks: Vec<Mark>,
    /// Up to where rows that were begun anew have to go.
    pub whole_at: Position,
    /// µs since 1970 by the database's clock, when a build is marked.
    pub now: i64,
    pub head: Position,
    pub incarnation: String,
    pub progress: Progress,
}

impl Stand {
    /// How the projection of this name and version stands; `None` when it has no rows.
    pub fn of(&self, name: &str, version: i32) -> Option<Status> {
        let find = |slot| self.marks.iter().find(|mark| mark.slot == slot && mark.name == name);
        let live = find(Slot::Live)?;
        let mut is_whole = true;
        let (state, problem) = if live.version > version {
            (State::Superseded, None)
        } else if let Some(next) = find(Slot::Next) {
            (State::Building, Some(self.building(next)))
        } else if live.version < version || live.incarnation != self.incarnation {
            (State::Building, None)
        } else if let Some(problem) = self.not_whole(live) {
            is_whole = false;
            (State::Running, Some(problem))
        } else if let Some(problem) = &live.problem {
            (State::Stopped, Some(problem.clone()))
        } else {
            let known = self.progress.projections.get(name);
            (State::Running, known.and_then(|_| self.progress.trouble.clone()))
        };
        Some(Status {
            name: live.name.clone(),
            version: live.version,
            position: live.position,
            lag: self.head.saturating_sub(live.position),
            state,
            problem,
            is_whole,
            previous: find(Slot::Previous)
                .map(|mark| Previous { version: mark.version, position: mark.position }),
        })
    }

    /// How far a build is, and who can go on with one that nobody seems to carry on.
    fn building(&self, next: &Mark) -> String {
        let Mark { name, version, position, .. } = next;
        let text = format!(
            "version {version} is being built, {position} of {} events are kept",
            self.head
        );
        let silent = self.now - next.updated_at;
        if silent < SILENT {
            return text;
        }
        let seconds = silent / 1_000_000;
        format!(
            "{text}; no sign of life for {seconds} s: if nobody carries it on, `proximity projections \
             rebuild {name}` does"
        )
    }

    /// What is wrong with rows that follow the log.
    fn not_whole(&self, live: &Mark) -> Option<String> {
        let Mark { name, position, problem, .. } = live;
        let (head, whole_at) = (self.head, self.whole_at);
        if *position > head {
            return Some(format!(
                "its rows are ahead of the log: they go up to {position}, the log to {head}; a server \
                 that starts builds them anew, and so does `proximity projections rebuild {name}`"
            ));
        }
        // One that has stopped gets no further, and says why.
        (problem.is_none() && *position < whole_at).then(|| {
            format!(
                "it is being filled, {position} of {whole_at} events: a server that runs does so"
            )
        })
    }
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
