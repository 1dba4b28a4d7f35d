//! The port `Hypervisor` as requests to Proxmox VE.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};
use rand::Rng as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Auth;
use crate::limits::Limits;
use crate::request::{Request, call};
use crate::row::malformed;
use crate::transport::{Failure, Gate, Reply, Transport};
use crate::{classify, create, decode, identity, oci, request, upid};

/// How many ended tasks of a number are looked at on each node; the newest come first.
const TASKS: u64 = 500;

/// A client of one host: a cluster through one of its nodes, or a lone node.
pub struct PveClient {
    /// `user@address:port`, for `Debug`.
    name: String,
    transport: Transport,
    auth: Auth,
    limits: Limits,
    gate: Gate,
}

impl fmt::Debug for PveClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PveClient").field("host", &self.name).finish_non_exhaustive()
    }
}

/// A success's data and what stands beside it.
struct Answer {
    data: Value,
    total: Option<u64>,
    certificate: Option<Vec<u8>>,
}

impl PveClient {
    /// A client with its own limit on calls at once. It connects and logs in with its first call.
    pub fn connect(spec: &ConnectionSpec, limits: Limits) -> Result<Self, HypervisorError> {
        Self::with_gate(spec, limits, Arc::new(Semaphore::new(limits.concurrency)))
    }

    /// A client that shares the limit on calls at once with others.
    pub(crate) fn with_gate(
        spec: &ConnectionSpec,
        limits: Limits,
        gate: Gate,
    ) -> Result<Self, HypervisorError> {
        Ok(Self {
            name: format!("{}@{}:{}", spec.user, spec.address, spec.port),
            transport: Transport::new(spec, &limits)?,
            auth: Auth::new(spec, limits)?,
            limits,
            gate,
        })
    }

    /// One attempt, with a second one behind a fresh log-in after a 401: that is given before
    /// anything happens, so it is safe for writes too.
    async fn attempt(
        &self,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<Reply, HypervisorError> {
        let call = request.call;
        let busy = || HypervisorError::Retryable {
            call,
            reason: format!("waited {:?} for other calls to this host", self.limits.queue),
        };
        let Ok(turn) = timeout(self.limits.queue, self.gate.acquire()).await else {
            return Err(busy());
        };
        let _turn = turn.map_err(|_| busy())?;
        let mut again = true;
        loop {
            let pass = self.auth.pass(&self.transport, request).await?;
            let end = deadline.unwrap_or_else(|| Instant::now() + self.limits.write);
            let started = Instant::now();
            let result = self.transport.send(request, pass.headers, end).await;
            let status = result.as_ref().map(|reply| reply.status).ok();
            tracing::debug!(call, status, elapsed = ?started.elapsed(), "proxmox answered");
            match result {
                Ok(reply)
                    if reply.status == 401 && again && self.auth.discard(pass.ticket).await =>
                {
                    again = false;
                }
                Ok(reply) => return Ok(reply),
                Err(failure) => return Err(meaning(request, failure)),
            }
        }
    }

    /// Sends a request and unwraps its data. Reads are repeated when their connection broke.
    async fn send(&self, request: &Request) -> Result<Answer, HypervisorError> {
        if request.is_write() {
            let reply = self.attempt(request, None).await?;
            return answer(request, reply);
        }
        let deadline = Instant::now() + self.limits.read;
        let mut attempts = 1;
        loop {
            let result = match self.attempt(request, Some(deadline)).await {
                Ok(reply) => answer(request, reply),
                Err(error) => Err(error),
            };
            let again = attempts < self.limits.read_attempts && Instant::now() < deadline;
            match result {
                Err(HypervisorError::Retryable { call, reason }) if again => {
                    tracing::debug!(call, reason, attempts, "reading again");
                    // 0 to 200 ms, then 0 to 400 ms: readers must not return in step.
                    let most = 100_u64 << attempts.min(5);
                    let pause = Duration::from_millis(rand::rng().random_range(0..=most));
                    sleep(pause).await;
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    async fn read(&self, request: &Request) -> Result<Value, HypervisorError> {
        self.send(request).await.map(|answer| answer.data)
    }

    /// A write that starts a task on `node`; about `vmid`, if about a guest.
    async fn task_for(
        &self,
        request: &Request,
        node: &NodeName,
        vmid: Option<Vmid>,
    ) -> Result<Upid, HypervisorError> {
        let call = request.call;
        let upid = decode::upid(call, &self.send(request).await?.data)?;
        let expected = upid::parse(&upid).is_some_and(|parts| {
            parts.node == *node && vmid.is_none_or(|vmid| parts.id == vmid.to_string())
        });
        if expected {
            Ok(upid)
        } else {
            let reason = "unexpected reply: the task of something else".to_owned();
            Err(HypervisorError::Unknown { call, reason })
        }
    }

    /// A write that is done when it answers. Its data is null; what else it says has no meaning.
    async fn done(&self, request: &Request) -> Result<(), HypervisorError> {
        self.send(request).await.map(drop)
    }

    async fn tasks_on(
        &self,
        node: &NodeName,
        vmid: Vmid,
        source: &'static str,
    ) -> Result<Vec<TaskSummary>, HypervisorError> {
        let request = request::tasks(node, vmid, source, 0, TASKS);
        decode::tasks(&self.read(&request).await?)
    }

    async fn log_page(
        &self,
        node: &NodeName,
        task: &Upid,
        start: u64,
        lines: u32,
    ) -> Result<(Vec<String>, Option<u64>), HypervisorError> {
        let request = request::task_log(node, task, start, u64::from(lines));
        let answer = self.send(&request).await?;
        Ok((decode::log_lines(&answer.data)?, answer.total))
    }
}

/// What a missing reply means: for a write that was sent, nobody knows.
fn meaning(request: &Request, failure: Failure) -> HypervisorError {
    let call = request.call;
    match failure {
        Failure::Certificate(reason) => HypervisorError::Certificate { call, reason },
        Failure::NotSent(reason) => HypervisorError::Retryable { call, reason },
        Failure::Lost(reason) if request.is_write() => HypervisorError::Unknown { call, reason },
        Failure::Lost(reason) => HypervisorError::Retryable { call, reason },
        Failure::TooLarge(limit) => unreadable(request, format!("more than {limit} bytes")),
    }
}

/// A reply that makes no sense: fatal for a read, an open outcome for a write.
fn unreadable(request: &Request, reason: String) -> HypervisorError {
    let call = request.call;
    if request.is_write() {
        HypervisorError::Unknown { call, reason: format!("unexpected reply: {reason}") }
    } else {
        malformed(call, reason)
    }
}

fn answer(request: &Request, reply: Reply) -> Result<Answer, HypervisorError> {
    if !(200..=299).contains(&reply.status) {
        return Err(classify::refusal(request, &reply));
    }
    let body: Value = serde_json::from_slice(&reply.body)
        .map_err(|_| unreadable(request, "it is not JSON".to_owned()))?;
    let Value::Object(mut body) = body else {
        return Err(unreadable(request, "it is not an object".to_owned()));
    };
    let Some(data) = body.remove("data") else {
        return Err(unreadable(request, "it has no data".to_owned()));
    };
    let total = body.get("total").and_then(Value::as_u64);
    Ok(Answer { data, total, certificate: reply.certificate })
}

/// What is absent is `None`.
fn if_there<T>(result: Result<T, HypervisorError>) -> Result<Option<T>, HypervisorError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(HypervisorError::NoGuest { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn forgotten(error: &HypervisorError) -> bool {
    matches!(error, HypervisorError::Permanent { reason, .. } if reason.contains("no such task"))
}

/// The node that a task's id names; asking any other answers nothing useful.
fn node_of(call: &'static str, task: &Upid) -> Result<NodeName, HypervisorError> {
    match upid::parse(task) {
        Some(parts) => Ok(parts.node),
        None => Err(HypervisorError::Permanent { call, reason: "not a task id".to_owned() }),
    }
}

#[async_trait]
impl Hypervisor for PveClient {
    async fn identity(&self) -> Result<ClusterIdentity, HypervisorError> {
        let answer = self.send(&request::cluster_status()).await?;
        identity::read(&answer.data, answer.certificate.as_deref())
    }

    async fn version(&self) -> Result<Version, HypervisorError> {
        decode::version(&self.read(&request::version()).await?)
    }

    async fn nodes(&self) -> Result<Vec<Node>, HypervisorError> {
        decode::nodes(&self.read(&request::nodes()).await?)
    }

    async fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        decode::guests(&self.read(&request::guests()).await?)
    }

    async fn vmid_is_free(&self, vmid: Vmid) -> Result<bool, HypervisorError> {
        match self.read(&request::nextid(vmid)).await {
            Ok(Value::String(text)) if text == vmid.to_string() => Ok(true),
            Ok(Value::Number(number)) if number.as_u64() == Some(vmid.get().into()) => Ok(true),
            Ok(_) => Err(malformed(call::NEXTID, "it is not the number that was asked about")),
            // 400 `vmid: VM 101 already exists`; any other refusal is one.
            Err(HypervisorError::Permanent { reason, .. })
                if reason.contains(&format!(" {vmid} already exists")) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn storages(&self, node: &NodeName) -> Result<Vec<Storage>, HypervisorError> {
        decode::storages(&self.read(&request::storages(node)).await?)
    }

    async fn config(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError> {
        let data = if_there(self.read(&request::config(node, vmid)).await)?;
        data.map(|data| decode::config(&data)).transpose()
    }

    async fn status(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestStatus>, HypervisorError> {
        let data = if_there(self.read(&request::status(node, vmid)).await)?;
        data.map(|data| decode::status(&data)).transpose()
    }

    async fn addresses(&self, node: &NodeName, vmid: Vmid) -> Result<Vec<IpAddr>, HypervisorError> {
        decode::addresses(&self.read(&request::interfaces(node, vmid)).await?)
    }

    async fn create(&self, node: &NodeName, guest: &NewGuest) -> Result<Upid, HypervisorError> {
        self.task_for(&create::request(node, guest)?, node, Some(guest.vmid)).await
    }

    async fn start(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::start(node, vmid), node, Some(vmid)).await
    }

    async fn stop(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::stop(node, vmid), node, Some(vmid)).await
    }

    async fn shutdown(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::shutdown(node, vmid, timeout_s), node, Some(vmid)).await
    }

    async fn reboot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::reboot(node, vmid, timeout_s), node, Some(vmid)).await
    }

    async fn set_protection(
        &self,
        node: &NodeName,
        vmid: Vmid,
        on: bool,
        digest: &str,
    ) -> Result<(), HypervisorError> {
        self.done(&request::set_protection(node, vmid, on, digest)).await
    }

    async fn set_description(
        &self,
        node: &NodeName,
        vmid: Vmid,
        text: &str,
        digest: &str,
    ) -> Result<(), HypervisorError> {
        self.done(&request::set_description(node, vmid, text, digest)).await
    }

    async fn destroy(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::destroy(node, vmid), node, Some(vmid)).await
    }

    async fn task(&self, task: &Upid) -> Result<Option<TaskState>, HypervisorError> {
        let node = node_of(call::TASK, task)?;
        match self.read(&request::task(&node, task)).await {
            Ok(data) => decode::task(&data).map(Some),
            Err(error) if forgotten(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first page says how many lines there are; an ended task's log is read in two calls at most.
    async fn task_log(&self, task: &Upid, lines: u32) -> Result<Vec<String>, HypervisorError> {
        let node = node_of(call::TASK_LOG, task)?;
        let (first, total) = match self.log_page(&node, task, 0, lines).await {
            Err(error) if forgotten(&error) => return Ok(Vec::new()),
            page => page?,
        };
        match total {
            Some(total) if total > u64::from(lines) => {
                let start = total - u64::from(lines);
                Ok(self.log_page(&node, task, start, lines).await?.0)
            }
            _ => Ok(first),
        }
    }

    /// The active ones first: a task that ends between the two questions is in the second answer.
    async fn tasks_of(&self, vmid: Vmid) -> Result<Vec<TaskSummary>, HypervisorError> {
        let mut found: Vec<TaskSummary> = Vec::new();
        for node in self.nodes().await? {
            for source in ["active", "archive"] {
                for task in self.tasks_on(&node.name, vmid, source).await? {
                    match found.iter_mut().find(|known| known.upid == task.upid) {
                        Some(known) => *known = task,
                        None => found.push(task),
                    }
                }
            }
        }
        let id = vmid.to_string();
        found.retain(|task| upid::parse(&task.upid).is_some_and(|parts| parts.id == id));
        found.sort_by_key(|task| std::cmp::Reverse(task.started));
        Ok(found)
    }

    async fn volumes(
        &self,
        node: &NodeName,
        storage: &str,
        content: &str,
    ) -> Result<Vec<Volume>, HypervisorError> {
        decode::volumes(&self.read(&request::volumes(node, storage, content)).await?)
    }

    async fn appliances(&self, node: &NodeName) -> Result<Vec<Appliance>, HypervisorError> {
        decode::appliances(&self.read(&request::appliances(node)).await?)
    }

    async fn download_appliance(
        &self,
        node: &NodeName,
        storage: &str,
        template: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::download(node, storage, template), node, None).await
    }

    async fn pull_oci_image(
        &self,
        node: &NodeName,
        storage: &str,
        reference: &str,
        file_name: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&oci::pull(node, storage, reference, file_name), node, None).await
    }
}
