//! What only browsers need: the CSRF cookie and its check, and CORS for configured origins.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use proximity_domain::SessionId;

use super::cookies;
use super::csrf::Csrf;
use super::origin::{Via, text};
use super::problem::Problem;
use super::route::Policy;
use crate::app::App;

/// Headers that pages of other origins may send.
const ALLOWED_HEADERS: &str = "content-type, x-csrftoken, idempotency-key, if-match";
/// Headers of answers that such pages may read.
const EXPOSED_HEADERS: &str = "x-request-id, proximity-position, etag, location, retry-after";

/// The browser's side of one request.
pub struct Browser {
    origin: Option<String>,
    csrf_cookie: Option<String>,
    csrf_header: Option<String>,
    has_authorization: bool,
    secure: bool,
    /// The session that the cookie identified, once it did.
    pub session: Option<SessionId>,
}

impl Browser {
    /// Reads what the request says.
    pub fn of(request: &HttpRequest, via: &Via) -> Self {
        let header = |name| text(request.headers(), &HeaderName::from_static(name));
        Self {
            // An origin that cannot be read is none of ours, and must not count as absent.
            origin: request
                .headers()
                .get(header::ORIGIN)
                .map(|value| value.to_str().unwrap_or("null").to_owned()),
            csrf_cookie: request.cookie(cookies::CSRF).map(|cookie| cookie.value().to_owned()),
            csrf_header: header("x-csrftoken"),
            has_authorization: request.headers().contains_key(header::AUTHORIZATION),
            secure: via.https,
            session: None,
        }
    }

    /// The page that sent the request.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Unsafe calls: always when a cookie identifies the caller; for calls that anybody may make
    /// only when a page sends them, since there is nothing of the caller's to misuse otherwise.
    pub fn check_csrf(&self, csrf: &Csrf, policy: Policy) -> Result<(), Problem> {
        let by_cookie = self.session.is_some();
        let by_page = matches!(policy, Policy::Public | Policy::Optional)
            && self.origin.is_some()
            && !self.has_authorization;
        if !by_cookie && !by_page {
            return Ok(());
        }
        csrf.check(self.csrf_cookie.as_deref(), self.csrf_header.as_deref(), self.session)
    }

    /// A refusal for want of identity; the session that its cookie names is over.
    pub fn refused(&mut self, problem: Problem) -> Problem {
        self.session = None;
        problem
    }

    /// Adds the CSRF cookie when the browser has none that fits, and the CORS headers.
    pub fn finish(&self, response: &mut HttpResponse, app: &App, request: &HttpRequest) {
        let is_api = request.path().starts_with("/api");
        let sets_it = response.cookies().any(|cookie| cookie.name() == cookies::CSRF);
        let fits = self.csrf_cookie.as_deref().is_some_and(|token| match self.session {
            Some(_) => app.csrf.fits(token, self.session),
            None => app.csrf.is_ours(token),
        });
        if is_api && !self.has_authorization && !sets_it && !fits {
            let cookie = cookies::csrf(app.csrf.issue(self.session), self.secure);
            if let Err(error) = response.add_cookie(&cookie) {
                tracing::error!(%error, "the CSRF cookie could not be set");
            }
        }
        if let Some(origin) = self.configured_origin(app) {
            cors_headers(response.headers_mut(), origin);
            insert(response.headers_mut(), header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }

    /// The answer to a preflight request of a configured origin.
    pub fn preflight(
        &self,
        request: &HttpRequest,
        app: &App,
        _via: &Via,
        allow: &str,
    ) -> Option<HttpResponse> {
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || !asks {
            return None;
        }
        self.configured_origin(app)?;
        let mut response = HttpResponse::NoContent().finish();
        let headers = response.headers_mut();
        insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, allow);
        insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        insert(headers, header::ACCESS_CONTROL_MAX_AGE, "600");
        Some(response)
    }

    fn configured_origin(&self, app: &App) -> Option<&str> {
        let origin = self.origin.as_deref()?;
        let configured = &app.config.server.cors_origins;
        configured.iter().any(|allowed| allowed == origin).then_some(origin)
    }
}

fn cors_headers(headers: &mut HeaderMap, origin: &str) {
    insert(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    insert(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    insert(headers, header::VARY, "Origin");
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
