//! The one error shape (RFC 9457), and how each error of ours becomes one.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use proximity_commands::policy::Admin;
use proximity_commands::{Error, FieldError};
use serde::Serialize;
use utoipa::ToSchema;

use super::codes;

/// The media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An answer that is not a success; the request id is added where it is sent. Boxed, since it
/// stands in the `Err` of almost every function here.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

/// What a problem consists of.
#[derive(Debug)]
pub struct Parts {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub errors: Vec<Field>,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// Methods, for 405.
    pub allow: Option<String>,
    /// Cookies to clear or set besides.
    pub cookies: Vec<actix_web::cookie::Cookie<'static>>,
}

/// One value that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Field {
    /// JSON pointer (RFC 6901) into the request's body, empty for all of it, or `?name` for a parameter
    /// of the query.
    #[schema(example = "/hostname")]
    pub pointer: String,
    /// Stable dotted code.
    #[schema(example = "hostname.invalid")]
    pub code: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// Every answer with status 400 and above: a problem of RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    /// Where the code is explained: `/problems/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: &'a str,
    /// The HTTP status again.
    #[schema(example = 409)]
    pub status: u16,
    /// What is wrong here, a sentence for a person.
    pub detail: &'a str,
    /// Stable dotted code; see `docs/errors/`.
    pub code: &'a str,
    /// Under which the server's log tells more.
    pub request_id: &'a str,
    /// For 422: each value that is wrong.
    #[serde(skip_serializing_if = "<[Field]>::is_empty")]
    pub errors: &'a [Field],
}

impl Problem {
    /// A problem with the status of its code.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let status = codes::find(code)
            .and_then(|entry| StatusCode::from_u16(entry.status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with_status(status, code, detail)
    }

    fn with_status(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            allow: None,
            cookies: Vec::new(),
        }))
    }

    /// The 404 of every resource: the same for what is someone else's and what never was.
    pub fn not_found() -> Self {
        Self::new("not_found", "there is nothing under this id")
    }

    /// A defect of ours; the cause has been logged.
    pub fn internal() -> Self {
        Self::new("internal", "an internal error; the request id leads to it in the server's log")
    }

    /// As for anybody, and with what Proxmox itself said, which whoever sets a host up has to know.
    pub fn for_admin(_: &Admin, error: Error) -> Self {
        let said = match &error {
            Error::Upstream { said, .. } => said.clone(),
            _ => None,
        };
        let mut problem = Self::from(error);
        if let Some(said) = said {
            problem.detail = said;
        }
        problem
    }

    /// One value of the body is wrong.
    pub fn field(
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        let mut problem = Self::new("value.invalid", detail.clone());
        problem.code = code;
        problem.errors = vec![Field { pointer: pointer.into(), code: code.to_owned(), detail }];
        problem
    }

    /// Adds a cookie to the answer.
    #[must_use]
    pub fn cookie(mut self, cookie: actix_web::cookie::Cookie<'static>) -> Self {
        self.cookies.push(cookie);
        self
    }

    /// The answer as it is sent.
    pub fn respond(&self, request_id: &str) -> HttpResponse {
        let title = codes::find(self.code)
            .map_or_else(|| self.status.canonical_reason().unwrap_or("Error"), |entry| entry.title);
        let body = Body {
            kind: format!("/problems/{}", self.code),
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            errors: &self.errors,
        };
        let mut response = HttpResponseBuilder::new(self.status);
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)));
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        for cookie in &self.cookies {
            response.cookie(cookie.clone());
        }
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl std::ops::Deref for Problem {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::ops::DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

/// `hostname` becomes `/hostname`; `environment.KEY` becomes `/environment/KEY`; nothing is the body as
/// a whole.
fn pointer(field: &str) -> String {
    if field.is_empty() || field.starts_with(['/', '?']) {
        field.to_owned()
    } else {
        format!("/{}", field.replace('.', "/"))
    }
}

fn fields(errors: Vec<FieldError>) -> Vec<Field> {
    errors
        .into_iter()
        .map(|FieldError { field, code, detail }| Field {
            pointer: pointer(&field),
            code: code.to_owned(),
            detail,
        })
        .collect()
}

/// Whole seconds, at least one: a zero would invite a storm.
fn seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs().max(1)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = error.code();
        let detail = error.to_string();
        let status = match &error {
            Error::Unauthenticated => StatusCode::UNAUTHORIZED,
            Error::NotFound => return Self::not_found(),
            Error::Rejected { .. } => StatusCode::BAD_REQUEST,
            Error::Forbidden { .. } => StatusCode::FORBIDDEN,
            Error::Conflict { .. } => StatusCode::CONFLICT,
            Error::Precondition { .. } => StatusCode::PRECONDITION_FAILED,
            Error::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::Upstream { timeout, said, .. } => {
                tracing::warn!(code, detail, said, "a call waited for Proxmox in vain");
                if *timeout { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY }
            }
            Error::Internal { .. } => {
                tracing::error!(error = chain(&error), "a command failed");
                return Self::internal();
            }
        };
        let mut problem = Self::with_status(status, code, detail);
        match error {
            Error::Invalid(errors) => problem.errors = fields(errors),
            Error::TooMany { retry_after, .. } | Error::Unavailable { retry_after, .. } => {
                problem.retry_after = Some(seconds(retry_after));
            }
            _ => {}
        }
        problem
    }
}

/// An error with all its causes, for the log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn audit_21_an_internal_error_tells_its_request_id_and_nothing_of_its_cause() {
        let cause = std::io::Error::other("relation \"users\" of 10.0.0.7 does not exist");
        let error = Error::internal("a stream cannot be loaded", cause);
        assert!(chain(&error).contains("10.0.0.7"), "the log is told");
        let response = Problem::from(error).respond("the-id");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body()).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("the-id"), "{text}");
        for told in ["users", "10.0.0.7", "stream", "relation"] {
            assert!(!text.contains(told), "{told} is in {text}");
        }
    }
}
