//! Sends a request as often as it may be sent, and unwraps what comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proximity_commands::ports::*;
use rand::Rng as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::auth::Auth;
use crate::classify;
use crate::limits::Limits;
use crate::lines;
use crate::request::Request;
use crate::row::malformed;
use crate::transport::{Failure, Gate, Reply, Transport};

/// A client of one host: a cluster through one of its nodes, or a lone node.
pub struct PveClient {
    /// `user@address:port`, for `Debug`.
    name: String,
    transport: Transport,
    auth: Auth,
    /// `user@realm!name`, as tasks name who started them; `None` with a password.
    pub(crate) token: Option<String>,
    pub(crate) limits: Limits,
    gate: Gate,
}

impl fmt::Debug for PveClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PveClient").field("host", &self.name).finish_non_exhaustive()
    }
}

/// A success's data and what stands beside it.
pub(crate) struct Answer {
    pub data: Value,
    pub total: Option<u64>,
    pub certificate: Option<Vec<u8>>,
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
            token: match &spec.credential {
                Credential::Token { id, .. } => Some(format!("{}!{id}", spec.user)),
                Credential::Password(_) => None,
            },
            limits,
            gate,
        })
    }

    /// One attempt, with a second one behind a fresh log-in after a 401: that is given before
    /// anything happens, so it is safe for writes too.
    ///
    /// Nothing is sent after `send_by`: a write that starts has its whole time before it, and the
    /// caller knows when at the latest it ends.
    async fn attempt(&self, request: &Request, send_by: Instant) -> Result<Reply, HypervisorError> {
        let call = request.call;
        let late = |what: &str| HypervisorError::Retryable {
            call,
            reason: format!("not sent: no time left after waiting for {what}").into(),
        };
        let turn = timeout_at(send_by, self.gate.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(late("other calls to this host")) };
        let mut again = true;
        loop {
            let pass = timeout_at(send_by, self.auth.pass(&self.transport, request)).await;
            let Ok(pass) = pass else { return Err(late("a log-in")) };
            let pass = pass?;
            let end = if request.is_write() { Instant::now() + self.limits.write } else { send_by };
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
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, HypervisorError> {
        self.send_upto(request, self.limits.read_attempts).await
    }

    /// The same with another number of attempts of a read.
    pub(crate) async fn send_upto(
        &self,
        request: &Request,
        most: u32,
    ) -> Result<Answer, HypervisorError> {
        lines::check(request)?;
        if request.is_write() {
            let send_by = Instant::now() + self.limits.write_wait;
            return answer(request, self.attempt(request, send_by).await?);
        }
        let deadline = Instant::now() + self.limits.read;
        let mut attempts = 1;
        loop {
            let result = match self.attempt(request, deadline).await {
                Ok(reply) => answer(request, reply),
                Err(error) => Err(error),
            };
            // 0 to 200 ms, then 0 to 400 ms: readers must not return in step.
            let longest = 100_u64 << attempts.min(5);
            let pause = Duration::from_millis(rand::rng().random_range(0..=longest));
            let again = attempts < most && Instant::now() + pause < deadline;
            match result {
                Err(
                    HypervisorError::Retryable { call, reason }
                    | HypervisorError::Unreachable { call, reason, .. },
                ) if again => {
                    tracing::debug!(call, %reason, attempts, "reading again");
                    sleep(pause).await;
                    attempts += 1;
                }
                result => return result,
            }
        }
    }
}

/// What a missing reply means: for a write that was sent, nobody knows.
fn meaning(request: &Request, failure: Failure) -> HypervisorError {
    let call = request.call;
    match failure {
        Failure::Certificate(reason) => HypervisorError::Certificate { call, reason },
        Failure::NotSent(reason) => HypervisorError::Retryable { call, reason: reason.into() },
        Failure::Lost(reason) if request.is_write() => {
            HypervisorError::Unknown { call, reason: reason.into() }
        }
        Failure::Lost(reason) => HypervisorError::Retryable { call, reason: reason.into() },
        Failure::TooLarge(limit) => unreadable(request, format!("more than {limit} bytes")),
    }
}

/// A reply that makes no sense: fatal for a read, an open outcome for a write.
fn unreadable(request: &Request, reason: String) -> HypervisorError {
    let call = request.call;
    if request.is_write() {
        HypervisorError::Unknown { call, reason: format!("unexpected reply: {reason}").into() }
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
