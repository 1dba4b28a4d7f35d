//! The credential's way into a request: a token's header, or tickets that are renewed in time.

use proximity_commands::Secret;
use proximity_commands::ports::{ConnectionSpec, Credential, HypervisorError, Reason};
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::classify;
use crate::limits::Limits;
use crate::request::{self, Request, encode};
use crate::transport::{Failure, Reply, Transport};

const CSRF: HeaderName = HeaderName::from_static("csrfpreventiontoken");

/// What goes with one request. `ticket` names the ticket used, for [`Auth::discard`].
pub(crate) struct Pass {
    pub headers: HeaderMap,
    pub ticket: Option<u64>,
}

/// Makes passes; one per client.
pub(crate) enum Auth {
    Token(HeaderValue),
    Tickets(Box<Tickets>),
}

impl Auth {
    pub(crate) fn new(spec: &ConnectionSpec, limits: Limits) -> Result<Self, HypervisorError> {
        match &spec.credential {
            Credential::Token { id, secret } => {
                let header = format!("PVEAPIToken={}!{id}={}", spec.user, secret.expose());
                Ok(Self::Token(sensitive(&header, "connect")?))
            }
            Credential::Password(password) => Ok(Self::Tickets(Box::new(Tickets {
                user: spec.user.clone(),
                password: password.clone(),
                limits,
                state: Mutex::new(State::default()),
            }))),
        }
    }

    /// The headers for a request; logs in first when there is no ticket.
    pub(crate) async fn pass(
        &self,
        transport: &Transport,
        request: &Request,
    ) -> Result<Pass, HypervisorError> {
        let mut headers = HeaderMap::new();
        match self {
            Self::Token(header) => {
                headers.insert(AUTHORIZATION, header.clone());
                Ok(Pass { headers, ticket: None })
            }
            Self::Tickets(tickets) => {
                let ticket = tickets.current(transport, request.call).await?;
                headers.insert(COOKIE, ticket.cookie);
                if request.is_write() {
                    headers.insert(CSRF, ticket.csrf);
                }
                Ok(Pass { headers, ticket: Some(ticket.number) })
            }
        }
    }

    /// Forgets the ticket that a 401 was given to, unless another call already has a newer one.
    /// Answers whether another try makes sense.
    pub(crate) async fn discard(&self, pass: Option<u64>) -> bool {
        match (self, pass) {
            (Self::Tickets(tickets), Some(number)) => {
                let mut state = tickets.state.lock().await;
                if state.ticket.as_ref().is_some_and(|ticket| ticket.number == number) {
                    state.ticket = None;
                }
                true
            }
            _ => false,
        }
    }
}

/// A password's tickets. The lock is held while logging in, so that many calls make one log-in.
pub(crate) struct Tickets {
    user: String,
    password: Secret,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    issued: u64,
    refused: Option<Instant>,
}

#[derive(Clone)]
struct Ticket {
    number: u64,
    since: Instant,
    text: Secret,
    cookie: HeaderValue,
    csrf: HeaderValue,
}

impl Tickets {
    async fn current(
        &self,
        transport: &Transport,
        call: &'static str,
    ) -> Result<Ticket, HypervisorError> {
        let mut state = self.state.lock().await;
        if let Some(ticket) = state.ticket.clone() {
            let age = ticket.since.elapsed();
            if age < self.limits.ticket_renew {
                return Ok(ticket);
            }
            if age < self.limits.ticket_end {
                match self.log_in(&mut state, transport, call, &ticket.text).await {
                    Ok(fresh) => return Ok(fresh),
                    // The old one holds for a while; this may be tried again with the next call.
                    Err(HypervisorError::Retryable { .. }) => return Ok(ticket),
                    // The host's key may have been rotated: the password still counts.
                    Err(_) => {}
                }
            }
        }
        // Many calls with a dead password would each wait 3 s, and look like an attack.
        if state.refused.is_some_and(|at| at.elapsed() < self.limits.refusal_pause) {
            return Err(HypervisorError::Unauthorized { call });
        }
        let result = self.log_in(&mut state, transport, call, &self.password).await;
        if matches!(result, Err(HypervisorError::Unauthorized { .. })) {
            state.refused = Some(Instant::now());
        }
        result
    }

    /// Exchanges the password, or a ticket that has not ended, for a ticket.
    ///
    /// The call that waits for it had no effect yet, so nothing here is `Unknown`.
    async fn log_in(
        &self,
        state: &mut State,
        transport: &Transport,
        call: &'static str,
        password: &Secret,
    ) -> Result<Ticket, HypervisorError> {
        let request = request::ticket(&self.user, password.expose());
        let deadline = Instant::now() + self.limits.read;
        let retryable = |reason: String| HypervisorError::Retryable {
            call,
            reason: format!("log-in: {reason}").into(),
        };
        let answered = |reply: &Reply| Reason::Answered {
            status: reply.status,
            words: format!("log-in: {}", classify::clean(&request, &classify::refusal_text(reply))),
        };
        let reply = match transport.send(&request, HeaderMap::new(), deadline).await {
            Ok(reply) => reply,
            Err(Failure::Certificate(reason)) => {
                return Err(HypervisorError::Certificate { call, reason });
            }
            Err(Failure::NotSent(reason) | Failure::Lost(reason)) => {
                return Err(retryable(reason));
            }
            Err(Failure::TooLarge(_)) => return Err(retryable("the reply is too large".into())),
        };
        match reply.status {
            200..=299 => {}
            401 => return Err(HypervisorError::Unauthorized { call }),
            400..=499 => {
                return Err(HypervisorError::Permanent { call, reason: answered(&reply) });
            }
            _ => return Err(HypervisorError::Retryable { call, reason: answered(&reply) }),
        }
        let (text, csrf) = parse(&reply, call)?;
        let cookie = format!("PVEAuthCookie={}", encode(text.expose()));
        state.issued += 1;
        let ticket = Ticket {
            number: state.issued,
            since: Instant::now(),
            cookie: sensitive(&cookie, call)?,
            csrf: sensitive(csrf.expose(), call)?,
            text,
        };
        state.ticket = Some(ticket.clone());
        state.refused = None;
        Ok(ticket)
    }
}

/// Ticket and CSRF token of a log-in's reply.
fn parse(reply: &Reply, call: &'static str) -> Result<(Secret, Secret), HypervisorError> {
    let malformed = |reason: &str| HypervisorError::Retryable {
        call,
        reason: format!("log-in: unexpected reply: {reason}").into(),
    };
    let body: Value =
        serde_json::from_slice(&reply.body).map_err(|_| malformed("it is not JSON"))?;
    let data = body.get("data").and_then(Value::as_object).ok_or_else(|| malformed("no data"))?;
    let text = |key: &str| data.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let ticket = text("ticket").ok_or_else(|| malformed("no ticket"))?;
    let challenge = data.get("NeedTFA").is_some_and(|value| {
        !matches!(value, Value::Null | Value::Bool(false)) && value != 0 && value != "0"
    });
    if challenge || ticket.starts_with("PVE:!tfa!") {
        return Err(HypervisorError::Permanent {
            call,
            reason: "log-in: the account has a second factor; an API token is needed".into(),
        });
    }
    let csrf = text("CSRFPreventionToken").ok_or_else(|| malformed("no CSRF token"))?;
    Ok((Secret::new(ticket.to_owned()), Secret::new(csrf.to_owned())))
}

/// A header whose value is left out of every debug print.
fn sensitive(text: &str, call: &'static str) -> Result<HeaderValue, HypervisorError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| HypervisorError::Permanent {
        call,
        reason: "the credential holds a character that no header may".into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
