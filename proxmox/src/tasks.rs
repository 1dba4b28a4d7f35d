//! The tasks about one number on all nodes of a cluster, but for those that the cluster has lost.

use proximity_commands::ports::*;
use proximity_domain::Vmid;

use crate::client::PveClient;
use crate::hypervisor::forgotten;
use crate::{decode, request, upid};

/// How many ended tasks of a number are looked at on each node; the newest come first.
const TASKS: u64 = 500;

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
            let request = request::task(&node.name, &task.upid);
            task.state = match self.send_upto(&request, attempts).await {
                Ok(answer) => decode::task(&answer.data)?,
                Err(error) if forgotten(&error) => TaskState::Unknown,
                Err(error) => return Err(error),
            };
        }
        Ok(found)
    }
}
