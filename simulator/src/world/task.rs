//! Tasks as the cluster remembers them: identity, state and log.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long after its end a node may list a task as running: Proxmox brings the list up to date when
/// another task begins there, and every ten seconds.
const LISTED: Duration = Duration::from_secs(10);

/// A task that runs or ran.
pub(crate) struct Task {
    pub(crate) upid: String,
    pub(crate) node: String,
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    /// `user` or `user!token`.
    pub(crate) by: String,
    pub(crate) pid: u32,
    pub(crate) pstart: u64,
    pub(crate) start: i64,
    pub(crate) end: Option<i64>,
    pub(crate) exit: Option<String>,
    /// The moment of its end.
    pub(crate) ended_at: Option<Instant>,
    pub(crate) log: Vec<String>,
    /// Asks it to stop, as `DELETE` does.
    pub(crate) abort: CancellationToken,
    /// Ends its worker without a last word, as a power cut does.
    pub(crate) kill: CancellationToken,
    /// Trips when it has ended.
    pub(crate) ended: CancellationToken,
}

impl Task {
    pub(crate) fn user(&self) -> &str {
        self.by.split_once('!').map_or(self.by.as_str(), |(user, _)| user)
    }

    fn token(&self) -> Option<&str> {
        self.by.split_once('!').map(|(_, token)| token)
    }

    pub(crate) fn status_json(&self) -> Value {
        let mut data = json!({
            "upid": self.upid, "node": self.node, "type": self.kind, "id": self.id,
            "user": self.user(), "pid": self.pid, "pstart": self.pstart, "starttime": self.start,
            "status": if self.exit.is_some() { "stopped" } else { "running" },
        });
        if let Some(token) = self.token() {
            data["tokenid"] = json!(token);
        }
        if let Some(exit) = &self.exit {
            data["exitstatus"] = json!(exit);
        }
        data
    }

    /// Whether its node's lists say that it runs; `begun`: when the last task began on the node. Its
    /// own status is never behind.
    pub(crate) fn is_listed_running(&self, begun: Option<Instant>) -> bool {
        self.ended_at.is_none_or(|ended| is_behind(ended, begun, Instant::now()))
    }

    /// A row of the task list, where `status` is what the status call names `exitstatus`.
    pub(crate) fn row_json(&self, running: bool) -> Value {
        let mut row = json!({
            "upid": self.upid, "node": self.node, "type": self.kind, "id": self.id,
            "user": self.user(), "pid": self.pid, "pstart": self.pstart, "starttime": self.start,
        });
        if let Some(token) = self.token() {
            row["tokenid"] = json!(token);
        }
        match (&self.exit, self.end) {
            (Some(exit), Some(end)) if !running => {
                row["status"] = json!(exit);
                row["endtime"] = json!(end);
            }
            _ => {
                row["status"] = json!("RUNNING");
                row["saved"] = json!("0");
            }
        }
        row
    }

    pub(crate) fn failed(&self) -> bool {
        self.exit.as_deref().is_some_and(|exit| exit != "OK" && !exit.starts_with("WARNINGS:"))
    }
}

/// Whether a list still says of a task that it runs, which ended at this moment.
fn is_behind(ended: Instant, begun: Option<Instant>, now: Instant) -> bool {
    begun.is_none_or(|begun| begun < ended) && now.saturating_duration_since(ended) < LISTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_behind_until_another_task_begins_or_ten_seconds_have_passed() {
        let before = Instant::now();
        let after = |seconds| before + Duration::from_secs(seconds);
        let ended = after(1);
        assert!(is_behind(ended, Some(before), after(10)));
        assert!(!is_behind(ended, Some(before), after(11)));
        assert!(!is_behind(ended, Some(after(2)), after(3)));
    }
}
