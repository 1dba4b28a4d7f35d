//! What the callers of a running system did and saw: one record for each call, by the callers' clock.

mod linear;
mod reference;
mod rules;

pub use linear::{Linear, linearize};
pub use reference::Reference;
pub use rules::{Verdict, judge};

use std::time::Duration;

use serde_json::Value;

/// A call that was made, and what came of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Tells it from all others; also its `Idempotency-Key`.
    pub key: String,
    /// Whose call it was: the user's number.
    pub caller: i64,
    pub is_admin: bool,
    pub command: Command,
    /// When it was sent, since the history began.
    pub invoked: Duration,
    /// When its answer was there whole; `None` when it never was.
    pub returned: Option<Duration>,
    pub outcome: Outcome,
    /// It was sent again under its key, because the first time no answer came.
    pub repeated: bool,
    /// Where the append stands that was stored under its key, as the store says; set at the end.
    pub kept: Option<u64>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Deploy {
        hostname: String,
    },
    /// `start`, `stop`, `restart` or `delete`.
    Act {
        app: String,
        action: &'static str,
    },
    Clone {
        app: String,
        hostname: String,
    },
    Backup {
        app: String,
    },
    RenameHost {
        host: i64,
        name: String,
    },
    Memory {
        megabytes: i64,
    },
    /// Reads something as it is at this position or later.
    Read {
        thing: Thing,
        since: u64,
    },
}

/// What can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    App(String),
    /// The default memory of new applications.
    Memory,
    HostName(i64),
}

/// What the caller learnt.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Accepted, or shown.
    Ok {
        /// The header `Proximity-Position`.
        position: u64,
        /// The answer's request id.
        request: String,
        /// The operation that its header `Location` names.
        operation: Option<String>,
        body: Value,
    },
    /// Refused with this code.
    Fail { code: String, request: String },
    /// It was carried out under this key, and the answer is not there to be given.
    Gone,
    /// No answer came: it may have happened.
    Info,
}

impl Call {
    /// The code that it was refused with.
    pub fn code(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Fail { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it was refused for a reason that has nothing to do with the state of things: too many
    /// at once, Proxmox could not be asked, or another try of its key was refused first.
    pub fn is_turned_away(&self) -> bool {
        let Some(code) = self.code() else { return false };
        matches!(
            code,
            "store.contended"
                | "store.busy"
                | "pools.contended"
                | "server.busy"
                | "idempotency_key.refused_meanwhile"
        ) || code.starts_with("proxmox.")
    }
}
