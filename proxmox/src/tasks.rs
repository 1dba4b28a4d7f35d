//! The tasks about one number on all nodes of a cluster, but for those that the cluster has lost.

use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};

use crate::client::PveClient;
use crate::hypervisor::forgotten;
use crate::request::{Request, call};
use crate::{decode, request, upid};

/// How many ended tasks of a number are looked at on each node; the newest come first.
const TASKS: u64 = 500;
/// The kind of a backup's task.
const JOB: &str = "vzdump";
/// The kind of a copy's task.
const COPY: &str = "vzclone";

impl PveClient {
    /// Lists are of each node's own tasks, so every node is asked. ADR 0024 says which one may be
    /// left out.
    pub(crate) async fn tasks_on_all_nodes(
        &self,
        vmid: Vmid,
    ) -> Result<Vec<TaskSummary>, HypervisorError> {
        let mut found: Vec<TaskSummary> = Vec::new();
        for node in self.nodes().await? {
            match self.tasks_on(&node, vmid).await {
                Ok(tasks) => found.extend(tasks),
                Err(error @ HypervisorError::Unreachable { .. }) => {
                    if !self.identity().await?.has_lost(&node.name) {
                        return Err(error);
                    }
                    tracing::info!(node = %node.name, %vmid, "the tasks of a lost node are left out");
                }
                Err(error) => return Err(error),
            }
        }
        for task in &mut found {
            task.own = self.token.as_deref() == Some(task.user.as_str());
        }
        found.sort_by_key(|task| std::cmp::Reverse(task.started));
        Ok(found)
    }

    /// The active ones first: a task that ends between the two questions is in the second answer.
    /// A node's list is only brought up to date when another task begins there, or every ten seconds,
    /// so one that it says runs is asked itself.
    async fn tasks_on(&self, node: &Node, vmid: Vmid) -> Result<Vec<TaskSummary>, HypervisorError> {
        // Each question to a node that is down takes three seconds; it is asked once.
        let attempts = if node.online { self.limits.read_attempts } else { 1 };
        let mut found: Vec<TaskSummary> = Vec::new();
        for source in ["active", "archive"] {
            let request = request::tasks(&node.name, vmid, source, 0, TASKS);
            let answer = self.send_upto(&request, attempts).await?;
            for task in decode::tasks(&answer.data)? {
                match found.iter_mut().find(|known| known.upid == task.upid) {
                    Some(known) => *known = task,
                    None => found.push(task),
                }
            }
        }
        let id = vmid.to_string();
        found.retain(|task| upid::parse(&task.upid).is_some_and(|parts| parts.id == id));
        for task in found.iter_mut().filter(|task| task.state == TaskState::Running) {
            task.state = self.state_now(&node.name, &task.upid, attempts).await?;
        }
        found.extend(self.by_lock(node, vmid, attempts).await?);
        Ok(found)
    }

    /// The tasks of a node that may be at work on a guest whose number they do not have: its lock says so.
    /// A backup job over several guests names none and locks them in turn, and a copy goes by the number
    /// of its source. Which of several such tasks holds the lock is not told, and one does.
    async fn by_lock(
        &self,
        node: &Node,
        vmid: Vmid,
        attempts: u32,
    ) -> Result<Vec<TaskSummary>, HypervisorError> {
        let request = Request::new(call::TASKS, &[node.name.as_str()])
            .with("source", "active")
            .with("limit", TASKS);
        let answer = self.send_upto(&request, attempts).await?;
        let id = vmid.to_string();
        let mut running = Vec::new();
        for mut task in decode::tasks(&answer.data)? {
            let Some(lock) = lock_of(&task, &id) else { continue };
            task.state = self.state_now(&node.name, &task.upid, attempts).await?;
            if task.state == TaskState::Running {
                running.push((lock, TaskSummary { by_lock: true, ..task }));
            }
        }
        if running.is_empty() {
            return Ok(Vec::new());
        }
        // A copy is made on its source's node, and only moved from there at its end.
        let config = self.config(&node.name, vmid).await?;
        let locked = config.and_then(|config| config.lock);
        running.retain(|(lock, _)| locked.as_deref() == Some(*lock));
        Ok(running.into_iter().map(|(_, task)| task).collect())
    }

    /// What a task says itself.
    async fn state_now(
        &self,
        node: &NodeName,
        task: &Upid,
        attempts: u32,
    ) -> Result<TaskState, HypervisorError> {
        match self.send_upto(&request::task(node, task), attempts).await {
            Ok(answer) => decode::task(&answer.data),
            Err(error) if forgotten(&error) => Ok(TaskState::Unknown),
            Err(error) => Err(error),
        }
    }
}

/// The lock of a guest that a task may be at work on without having its number.
fn lock_of(task: &TaskSummary, number: &str) -> Option<&'static str> {
    let parts = upid::parse(&task.upid)?;
    match parts.kind {
        JOB if parts.id.is_empty() => Some("backup"),
        COPY if parts.id != number => Some("create"),
        _ => None,
    }
}
