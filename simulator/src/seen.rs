//! What arrived: connections, handshakes and requests, and whether a credential was among the bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

const LIMIT: usize = 100_000;

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSeen {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Whether it carried a ticket, a token or a password.
    pub credential: bool,
    /// The caller once it was authenticated.
    pub by: Option<String>,
    /// The status that was answered; `None` if the connection was cut instead.
    pub status: Option<u16>,
}

/// Everything that arrived since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsSeen {
    /// TCP connections accepted.
    pub connections: u64,
    /// TLS handshakes that the client completed.
    pub handshakes: u64,
    /// TLS handshakes that the client broke off.
    pub handshakes_failed: u64,
    /// Requests that carried a credential.
    pub credentials: u64,
    /// The requests, oldest first; the oldest are dropped beyond 100,000.
    pub requests: Vec<RequestSeen>,
}

#[derive(Default)]
struct Inner {
    connections: u64,
    handshakes: u64,
    handshakes_failed: u64,
    credentials: u64,
    requests: VecDeque<RequestSeen>,
}

/// The recorder.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Inner>);

impl Seen {
    fn with(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn connection(&self) {
        self.with(|inner| inner.connections += 1);
    }

    pub(crate) fn handshake(&self, done: bool) {
        self.with(|inner| {
            if done {
                inner.handshakes += 1;
            } else {
                inner.handshakes_failed += 1;
            }
        });
    }

    pub(crate) fn request(&self, request: RequestSeen) {
        self.with(|inner| {
            inner.credentials += u64::from(request.credential);
            if inner.requests.len() == LIMIT {
                inner.requests.pop_front();
            }
            inner.requests.push_back(request);
        });
    }

    pub(crate) fn all(&self) -> RequestsSeen {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        RequestsSeen {
            connections: inner.connections,
            handshakes: inner.handshakes,
            handshakes_failed: inner.handshakes_failed,
            credentials: inner.credentials,
            requests: inner.requests.iter().cloned().collect(),
        }
    }
}
