//! What a handler gives back: a status, a body, and the few headers that carry meaning here.

use std::borrow::Cow;
use std::io;

use actix_web::HttpResponse;
use actix_web::HttpResponseBuilder;
use actix_web::cookie::Cookie;
pub use actix_web::http::StatusCode;
use actix_web::http::header;
use bytes::Bytes;
use futures_util::stream::unfold;
use proximity_commands::answers::Answer;
use proximity_eventstore::Position;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;

use super::problem::Problem;
use super::tags;

/// A success; owned and `Send`, it becomes a response on the thread of its connection.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: Cow<'static, str>,
    body: Bytes,
    location: Option<String>,
    pub(super) position: Option<Position>,
    cookies: Vec<Cookie<'static>>,
    etag: Option<String>,
    shows_secret: bool,
    policy: Option<&'static str>,
    file: Option<&'static str>,
    parts: Option<Receiver<Option<Bytes>>>,
    is_live: bool,
}

impl Reply {
    fn with(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        Self {
            status,
            content_type: content_type.into(),
            body,
            location: None,
            position: None,
            cookies: Vec::new(),
            etag: None,
            shows_secret: false,
            policy: None,
            file: None,
            parts: None,
            is_live: false,
        }
    }

    /// What the page may load, as a `Content-Security-Policy`; without one a browser loads nothing.
    #[must_use]
    pub fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Says under which name a browser keeps it, instead of showing it.
    #[must_use]
    pub fn file(mut self, name: &'static str) -> Self {
        self.file = Some(name);
        self
    }

    /// Says that the body or a cookie shows a secret this one time: it is never kept.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.shows_secret = true;
        self
    }

    /// What is kept of it under an idempotency key; of a secret only that there was one.
    pub(super) fn kept(&self) -> Answer {
        Answer {
            status: self.status.as_u16(),
            content_type: self.content_type.to_string(),
            body: (!self.shows_secret).then(|| self.body.to_vec()),
            location: self.location.clone(),
            position: self.position.unwrap_or(0),
        }
    }

    /// A kept answer given again; `None` when it showed a secret.
    pub(super) fn again(answer: Answer) -> Option<Self> {
        let status = StatusCode::from_u16(answer.status).ok()?;
        let mut reply = Self::with(status, "", answer.body?.into());
        reply.content_type = answer.content_type.into();
        reply.location = answer.location;
        reply.position = Some(answer.position).filter(|position| *position > 0);
        Some(reply)
    }

    /// 200 with JSON.
    pub fn json(body: &impl Serialize) -> Result<Self, Problem> {
        match serde_json::to_vec(body) {
            Ok(bytes) => Ok(Self::with(StatusCode::OK, "application/json", bytes.into())),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                Err(Problem::internal())
            }
        }
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// 202 with JSON: the wish is recorded, an operation fulfils it.
    pub fn accepted(body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self::json(body)?.status(StatusCode::ACCEPTED))
    }

    /// 201 with JSON.
    pub fn created(body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self::json(body)?.status(StatusCode::CREATED))
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::with(StatusCode::NO_CONTENT, "", Bytes::new())
    }

    /// 200 with something that is not JSON.
    pub fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::with(StatusCode::OK, content_type, body.into())
    }

    /// 200 with parts as they come, up to a `None`; when their sender ends without one, the connection
    /// is broken off, so that nobody takes a part for the whole.
    pub fn parts(content_type: &'static str, parts: Receiver<Option<Bytes>>) -> Self {
        let mut reply = Self::with(StatusCode::OK, content_type, Bytes::new());
        reply.parts = Some(parts);
        reply
    }

    /// Leaves out what has no end: whoever asks with HEAD takes none of it.
    pub fn drop_live(&mut self) {
        if self.is_live {
            self.parts = None;
        }
    }

    /// The same without an end that is known, each part for now.
    pub fn live(content_type: &'static str, parts: Receiver<Option<Bytes>>) -> Self {
        Self { is_live: true, ..Self::parts(content_type, parts) }
    }

    /// Another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Where what was made, or what makes it, can be read.
    #[must_use]
    pub fn location(mut self, path: impl Into<String>) -> Self {
        self.location = Some(path.into());
        self
    }

    /// The place in the log that this write reached.
    #[must_use]
    pub fn at(mut self, position: impl Into<Option<Position>>) -> Self {
        self.position = position.into();
        self
    }

    /// Sets a cookie.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie<'static>) -> Self {
        self.cookies.push(cookie);
        self
    }

    /// Tags the body, so that it can be asked for only when it differs.
    #[must_use]
    pub fn tagged(mut self) -> Self {
        self.etag = Some(tags::of(&self.body));
        self
    }

    /// Tags the body as [`Self::tagged`], where parts of it change without a change of the resource,
    /// as figures do: `state` is the answer without them, and alone counts for `If-Match`.
    #[must_use]
    pub fn tagged_as(mut self, state: &Self) -> Self {
        self.etag = Some(tags::with_figures(&tags::of(&state.body), &self.body));
        self
    }

    /// The answer as it is sent; `if_none_match` is the request's header.
    pub(super) fn respond(self, if_none_match: Option<&str>) -> HttpResponse {
        let known = |tag: &str| if_none_match.is_some_and(|header| tags::matches(header, tag));
        if let Some(tag) = self.etag.as_deref().filter(|tag| known(tag)) {
            return HttpResponse::NotModified().insert_header((header::ETAG, tag)).finish();
        }
        let mut response = HttpResponseBuilder::new(self.status);
        if let Some(location) = self.location {
            response.insert_header((header::LOCATION, location));
        }
        if let Some(tag) = self.etag {
            response.insert_header((header::ETAG, tag));
        }
        if let Some(policy) = self.policy {
            response.insert_header((header::CONTENT_SECURITY_POLICY, policy));
        }
        if let Some(name) = self.file {
            let disposition = format!("attachment; filename=\"{name}\"");
            response.insert_header((header::CONTENT_DISPOSITION, disposition));
        }
        for cookie in self.cookies {
            response.cookie(cookie);
        }
        if self.status == StatusCode::NO_CONTENT {
            return response.finish();
        }
        response.insert_header((header::CONTENT_TYPE, self.content_type.into_owned()));
        if self.is_live {
            // Proxies that gather an answer before they pass it on would never pass this one on.
            response.insert_header(("x-accel-buffering", "no"));
            // Its connection is ended with it: nothing else may be on its way there.
            response.force_close();
        }
        if let Some(parts) = self.parts {
            return response.streaming(unfold(parts, async |mut parts| match parts.recv().await {
                Some(Some(part)) => Some((Ok(part), parts)),
                Some(None) => None,
                None => Some((Err(io::Error::other("broken off")), parts)),
            }));
        }
        response.body(self.body)
    }
}
