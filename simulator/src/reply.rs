//! What a call answers: data or a refusal, and how both look on the wire in either age of Proxmox.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

/// A successful answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) data: Value,
    /// The sibling of `data` in paged lists.
    pub(crate) total: Option<usize>,
}

impl Reply {
    pub(crate) fn data(data: Value) -> Result<Self, Refusal> {
        Ok(Self { data, total: None })
    }

    pub(crate) fn null() -> Result<Self, Refusal> {
        Self::data(Value::Null)
    }
}

/// A refused call.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The reason phrase, without the newline that the body adds.
    pub(crate) reason: String,
    pub(crate) errors: BTreeMap<String, String>,
    pub(crate) body: RefusalBody,
}

/// The body that goes with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalBody {
    /// `{"data":null,"message":…}`, or without `message` in the older age.
    Json,
    /// The same with a message that does not end in a newline (501).
    JsonBare,
    /// Nothing at all: the authentication layer and the pseudo codes.
    Empty,
    /// The reason as plain text.
    Text,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { status, reason, errors: BTreeMap::new(), body: RefusalBody::Json }
    }

    /// What a `die` in the Perl code becomes.
    pub(crate) fn die(reason: impl Into<String>) -> Self {
        Self::new(500, reason)
    }

    pub(crate) fn empty(status: u16, reason: impl Into<String>) -> Self {
        Self { body: RefusalBody::Empty, ..Self::new(status, reason) }
    }

    pub(crate) fn text(status: u16, reason: impl Into<String>) -> Self {
        Self { body: RefusalBody::Text, ..Self::new(status, reason) }
    }

    pub(crate) fn forbidden(what: impl std::fmt::Display) -> Self {
        Self::new(403, format!("Permission check failed ({what})"))
    }

    pub(crate) fn not_implemented(method: &str, path: &str) -> Self {
        let reason = format!("Method '{method} {path}' not implemented");
        Self { body: RefusalBody::JsonBare, ..Self::new(501, reason) }
    }

    pub(crate) fn parameters(errors: BTreeMap<String, String>) -> Self {
        Self { errors, ..Self::new(400, "Parameter verification failed.") }
    }

    pub(crate) fn parameter(name: &str, error: impl Into<String>) -> Self {
        Self::parameters(BTreeMap::from([(name.to_owned(), error.into())]))
    }

    pub(crate) fn no_config(node: &str, vmid: u32) -> Self {
        Self::die(no_config_text(node, vmid))
    }

    /// The text that ends a task which fails the way this call would have.
    pub(crate) fn task_text(&self) -> String {
        if self.status == 500 {
            self.reason.clone()
        } else {
            format!("{} {}", self.status, self.reason)
        }
    }
}

pub(crate) fn no_config_text(node: &str, vmid: u32) -> String {
    format!("Configuration file 'nodes/{node}/lxc/{vmid}.conf' does not exist")
}

pub(crate) type Response = hyper::Response<Full<Bytes>>;
pub(crate) type Outcome = Result<Reply, Refusal>;

/// Puts an outcome on the wire. `message_in_body` selects the age of Proxmox.
pub(crate) fn render(outcome: &Outcome, message_in_body: bool) -> Response {
    match outcome {
        Ok(reply) => {
            let mut body = serde_json::Map::new();
            body.insert("data".to_owned(), reply.data.clone());
            if let Some(total) = reply.total {
                body.insert("total".to_owned(), json!(total));
            }
            with_body(200, "OK", Some("application/json;charset=UTF-8"), json_bytes(&body))
        }
        Err(refusal) => {
            let mut body = serde_json::Map::new();
            body.insert("data".to_owned(), Value::Null);
            if !refusal.errors.is_empty() {
                body.insert("errors".to_owned(), json!(refusal.errors));
            }
            let (kind, bytes) = match refusal.body {
                RefusalBody::Empty => (None, Bytes::new()),
                RefusalBody::Text => (None, Bytes::from(refusal.reason.clone())),
                RefusalBody::Json | RefusalBody::JsonBare => {
                    if message_in_body {
                        let end = if refusal.body == RefusalBody::Json { "\n" } else { "" };
                        body.insert(
                            "message".to_owned(),
                            json!(format!("{}{end}", refusal.reason)),
                        );
                    }
                    (Some("application/json;charset=UTF-8"), json_bytes(&body))
                }
            };
            with_body(refusal.status, &refusal.reason, kind, bytes)
        }
    }
}

fn json_bytes(body: &serde_json::Map<String, Value>) -> Bytes {
    Bytes::from(Value::Object(body.clone()).to_string())
}

/// Builds a response with a reason phrase; only its first line fits into one.
pub(crate) fn with_body(
    status: u16,
    reason: &str,
    content_type: Option<&'static str>,
    body: Bytes,
) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let first_line = reason.lines().next().unwrap_or_default();
    if let Ok(phrase) = ReasonPhrase::try_from(first_line.as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
    if let Some(kind) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if status >= 400 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
