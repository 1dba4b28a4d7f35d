//! The one way through which every request goes: read, check, authenticate, call, answer.

use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use proximity_commands::{Actor, Secret};
use tracing::Instrument as _;
use uuid::Uuid;

use super::browser::Browser;
use super::call::{Call, Presented};
use super::noted::note_refusal;
use super::origin::{Via, text};
use super::peer::Peer;
use super::problem::Problem;
use super::reply::Reply;
use super::route::{Policy, Route, Verb};
use super::{accept, cookies, declared, dry, headers, identity, position, query};
use crate::app::App;

/// Within which a body must have arrived in full.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a body that nobody has to sign in for.
const PUBLIC_BODY_LIMIT: usize = 16 * 1024;
/// Seconds after which a client may look whether somebody has restarted the server.
const UNTIL_RESTARTED: u64 = 30;
/// Characters of an `Idempotency-Key`.
const KEY_LIMIT: usize = 255;

/// What the path and method of a request lead to.
#[derive(Clone, Copy)]
pub enum Target {
    Route(&'static Route),
    /// The path exists; these are its methods.
    MethodNotAllowed(&'static str),
    Unknown,
}

/// Answers a request, whatever becomes of it.
pub async fn handle(
    target: Target,
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> HttpResponse {
    let started = Instant::now();
    let request_id = Uuid::now_v7().simple().to_string();
    let span = tracing::info_span!("request", id = %request_id);
    let _in_flight = app.metrics.enter();
    let via = Via::of(&request, &app.config.server);
    let mut browser = Browser::of(&request, &via);

    let outcome = answer(target, &request, payload, &app, &via, &mut browser, &request_id)
        .instrument(span.clone())
        .await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(problem) => problem.respond(&request_id),
    };
    browser.finish(&mut response, &app, &request);
    common_headers(&mut response, &request_id, via.https);

    let name = match target {
        Target::Route(route) => route.name,
        Target::MethodNotAllowed(_) => "method not allowed",
        Target::Unknown => "unknown",
    };
    let status = response.status().as_u16();
    let took = started.elapsed();
    app.metrics.answered(name, status, took);
    let _entered = span.enter();
    tracing::info!(
        method = %request.method(),
        path = request.path(),
        status,
        ms = took.as_millis(),
        client = via.client.map(|client| client.to_string()),
        "answered"
    );
    response
}

async fn answer(
    target: Target,
    request: &HttpRequest,
    payload: web::Payload,
    app: &web::Data<App>,
    via: &Via,
    browser: &mut Browser,
    request_id: &str,
) -> Result<HttpResponse, Problem> {
    let route = match target {
        Target::Route(route) => route,
        Target::MethodNotAllowed(allow) => {
            if let Some(preflight) = browser.preflight(request, app, via, allow) {
                return Ok(preflight);
            }
            let mut problem = Problem::new(
                "method.not_allowed",
                format!("this path answers {allow}, not {}", request.method()),
            );
            problem.allow = Some(allow.to_owned());
            return Err(problem);
        }
        Target::Unknown => {
            return Err(Problem::new("route.unknown", "there is no such path"));
        }
    };
    let mut who = nobody(via, request_id);
    let call = admit(route, request, payload, app, via, browser, &mut who)
        .await
        .inspect_err(|problem| note_refusal(app, route, &who, request.path(), problem))?;
    let minimum = position::wanted(request)?;
    let if_none_match = headers::list(request.headers(), &header::IF_NONE_MATCH)?;
    // What changed something says so, whatever the client has kept of it.
    let if_none_match = if_none_match.filter(|_| route.verb.is_safe());
    let (mut reply, position) = run(route, call, minimum).await?;
    if request.method() == Method::HEAD {
        reply.drop_live();
    }
    let mut response = reply.respond(if_none_match.as_deref());
    if let Some(position) = position {
        response.headers_mut().insert(position::HEADER, position);
    }
    Ok(response)
}

/// Everything that a call has to pass before its handler is asked; `who` is whom it turns out to be of,
/// also when it does not pass.
async fn admit(
    route: &'static Route,
    request: &HttpRequest,
    payload: web::Payload,
    app: &web::Data<App>,
    via: &Via,
    browser: &mut Browser,
    who: &mut Actor,
) -> Result<Call, Problem> {
    if app.metrics.in_flight() > app.max_requests() && route.policy != Policy::Public {
        let mut problem = Problem::new("server.busy", "the server is at its limit; try again");
        problem.retry_after = Some(1);
        return Err(problem);
    }
    if !app.is_ready() && route.policy != Policy::Public {
        let mut problem = Problem::new("store.closed", "the server is shutting down");
        problem.retry_after = Some(1);
        return Err(problem);
    }
    if route.needs_views() && app.views.is_filling() {
        let detail = "the read models are being built; nothing is answered from a part of them";
        let mut problem = Problem::new("views.filling", detail);
        problem.retry_after = Some(1);
        return Err(problem);
    }
    if route.needs_views() && app.views.is_damaged() {
        let detail = "the read models are damaged; a restart of the server builds them anew";
        let mut problem = Problem::new("store.unavailable", detail);
        problem.retry_after = Some(UNTIL_RESTARTED);
        return Err(problem);
    }
    accept::check(request)?;
    let unsafe_call = !route.verb.is_safe();
    if unsafe_call {
        via.require(browser.origin(), &app.config.server)?;
    }

    let mut presented = presented(request, via)?;
    identity::establish(route, app, via, &mut presented, who)
        .await
        .map_err(|problem| browser.refused(problem))?;
    browser.session = who.session().filter(|_| presented.by_cookie);
    if unsafe_call {
        browser.check_csrf(&app.csrf, route.policy)?;
    }
    query::legible(request.query_string())?;
    declared::check(route, request.query_string())?;
    let params = params(request);
    if params.iter().any(|(_, value)| query::has_controls(value)) {
        // No id that was ever issued has them.
        return Err(Problem::not_found());
    }
    let limit = match route.policy {
        Policy::Public => PUBLIC_BODY_LIMIT.min(app.config.server.body_limit),
        _ => app.config.server.body_limit,
    };
    let body = read_body(request, payload, limit).await?;
    Ok(Call {
        app: app.clone().into_inner(),
        actor: who.clone(),
        request_id: who.request.clone().unwrap_or_default(),
        params,
        query: request.query_string().to_owned(),
        body,
        route: route.name,
        path: request.path().to_owned(),
        host: via.host.clone(),
        presented: presented.rest,
        peer: Peer::of(request),
        refusals: 0,
    })
}

/// Runs the handler on the main runtime in a task of its own: a connection that breaks cannot
/// cancel a command midway, and a panic becomes an answer.
async fn run(
    route: &'static Route,
    call: Call,
    minimum: Option<position::Wanted>,
) -> Result<(Reply, Option<header::HeaderValue>), Problem> {
    let app = call.app.clone();
    let work = async move {
        let (app, actor, path) = (call.app.clone(), call.actor.clone(), call.path.clone());
        // In here, so that a connection that breaks keeps no refusal out of the log.
        perform(route, call, minimum)
            .await
            .inspect_err(|problem| note_refusal(&app, route, &actor, &path, problem))
    };
    app.detached(work.in_current_span()).await.unwrap_or_else(|panic| {
        tracing::error!(route = route.name, %panic, "a handler panicked");
        Err(Problem::internal())
    })
}

async fn perform(
    route: &'static Route,
    call: Call,
    minimum: Option<position::Wanted>,
) -> Result<(Reply, Option<header::HeaderValue>), Problem> {
    let app = call.app.clone();
    if route.verb == Verb::Get {
        position::reach(&app, minimum).await?;
    }
    let reply = dry::answered(route, call).await?;
    let position = position::header(&app, reply.position);
    Ok((reply, position))
}

/// Everything the identity and the handlers look at.
pub struct Presentation {
    pub bearer: Option<Secret>,
    pub malformed_authorization: bool,
    pub cookie: Option<Secret>,
    /// The identity came from the cookie, so the CSRF rules apply.
    pub by_cookie: bool,
    pub rest: Presented,
}

fn presented(request: &HttpRequest, via: &Via) -> Result<Presentation, Problem> {
    let sent = request.headers();
    // One that cannot be read, or another one beside it, identifies nobody.
    let authorization = headers::text(sent, &header::AUTHORIZATION).unwrap_or_default();
    let bearer = authorization.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
    });
    let cookie = |name| {
        let cookie = request.cookie(name)?;
        (!cookie.value().is_empty()).then(|| Secret::new(cookie.value().to_owned()))
    };
    let key = headers::text(sent, &HeaderName::from_static("idempotency-key"))?;
    let key = key.map(|key| key.trim().to_owned());
    if key.as_ref().is_some_and(|key| !(1..=KEY_LIMIT).contains(&key.len())) {
        let detail = format!("an Idempotency-Key has 1 to {KEY_LIMIT} visible characters");
        return Err(Problem::new("request.malformed", detail));
    }
    let last_event_id = headers::text(sent, &HeaderName::from_static("last-event-id"))
        .map_err(|problem| Problem::new("position.unknown", problem.detail.clone()))?;
    Ok(Presentation {
        malformed_authorization: sent.contains_key(header::AUTHORIZATION) && bearer.is_none(),
        cookie: cookie(cookies::ACCESS),
        by_cookie: false,
        rest: Presented {
            idempotency_key: key,
            if_match: headers::list(sent, &header::IF_MATCH)?,
            last_event_id,
            accept: headers::list(sent, &header::ACCEPT)?,
            user_agent: text(sent, &header::USER_AGENT),
            refresh: cookie(cookies::REFRESH),
            access: bearer.clone(),
            forwarded: sent.contains_key(header::X_FORWARDED_FOR),
            secure: via.https,
        },
        bearer,
    })
}

/// The parameters of the path, percent-decoded; one that is not UTF-8 names nothing that exists.
fn params(request: &HttpRequest) -> Vec<(String, String)> {
    request.match_info().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

async fn read_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new("body.too_large", format!("the body may have at most {limit} bytes"));
    let announced = text(request.headers(), &header::CONTENT_LENGTH)
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let unsupported = |detail| Err(Problem::new("body.unsupported", detail));
    let encoding = headers::list(request.headers(), &header::CONTENT_ENCODING)?;
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return unsupported("send the body without Content-Encoding");
    }
    let kind = headers::text(request.headers(), &header::CONTENT_TYPE)?;
    let read = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| {
                Problem::new("body.malformed", "the body was cut off or is framed wrongly")
            })?;
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    // No database call is inside: a time-out here drops nothing but bytes.
    let body = tokio::time::timeout(BODY_PATIENCE, read)
        .await
        .map_err(|_| Problem::new("request.timeout", "the body did not arrive in time"))??;
    if !body.is_empty() && !kind.is_some_and(|kind| is_json(&kind)) {
        return unsupported("send the body as application/json");
    }
    Ok(body)
}

fn is_json(kind: &str) -> bool {
    let mut parts = kind.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| {
        kind.eq_ignore_ascii_case("application/json")
            || (kind.len() > 17
                && kind[..12].eq_ignore_ascii_case("application/")
                && kind[kind.len() - 5..].eq_ignore_ascii_case("+json"))
    });
    json && parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

/// What every answer carries.
fn common_headers(response: &mut HttpResponse, request_id: &str, https: bool) {
    let mut set = |name: &'static str, value: &str| {
        let name = HeaderName::from_static(name);
        if let Ok(value) = header::HeaderValue::from_str(value)
            && !response.headers().contains_key(&name)
        {
            response.headers_mut().insert(name, value);
        }
    };
    set("x-request-id", request_id);
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("referrer-policy", "no-referrer");
    set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
    set("cross-origin-resource-policy", "same-origin");
    set("cache-control", "no-store");
    if https {
        set("strict-transport-security", "max-age=31536000");
    }
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
}

/// The methods of a path as the `Allow` header lists them.
pub fn allow(verbs: &[Verb]) -> String {
    let mut names: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    if verbs.contains(&Verb::Get) {
        names.push(Method::HEAD.as_str());
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Nobody, with what is known of the way.
pub fn nobody(via: &Via, request_id: &str) -> Actor {
    Actor::anonymous(via.client, Some(request_id.to_owned()))
}
