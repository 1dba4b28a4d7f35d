//! Reads a request: framing, the caller behind it, and its parameters from query, form or JSON.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::auth::Auth;
use crate::reply::Refusal;
use crate::routes;
use crate::sim::Sim;

/// Longest body that is read.
const BODY_LIMIT: usize = 512 * 1024;

/// A request whose body has been read.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Below `/api2/json`, decoded.
    pub(crate) path: String,
    pub(crate) segments: Vec<String>,
    pub(crate) given: BTreeMap<String, String>,
    pub(crate) auth: Option<Auth>,
}

pub(crate) fn carries_credential(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key("CSRFPreventionToken")
        || headers
            .get_all(header::COOKIE)
            .iter()
            .any(|cookie| cookie.to_str().is_ok_and(|cookie| cookie.contains("PVEAuthCookie")))
}

/// Reads and authenticates a request; the order of the checks is that of the real server.
pub(crate) async fn read(sim: &Sim, request: Request<Incoming>) -> Result<Asked, Refusal> {
    let (head, body) = request.into_parts();
    if ![Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE]
        .contains(&head.method)
    {
        return Err(Refusal::empty(501, format!("method '{}' not available", head.method)));
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::text(501, "chunked transfer encoding not supported"));
    }
    let Some(raw) = head.uri.path().strip_prefix("/api2/json").map(str::to_owned) else {
        return Err(Refusal::text(404, format!("no such file '{}'", head.uri.path())));
    };
    let segments: Vec<String> = raw
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let path = format!("/{}", segments.join("/"));
    let auth = authenticate(sim, &head.method, &path, &head.headers)?;
    let length = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    let takes_body = head.method == Method::POST || head.method == Method::PUT;
    if length > 0 && !takes_body {
        let text = format!("Unexpected content for method '{}'", head.method);
        return Err(Refusal::text(501, text));
    }
    if length > BODY_LIMIT {
        return Err(Refusal::text(501, "for data too large"));
    }
    let mut given = BTreeMap::new();
    if length > 0 {
        let kind = content_type(&head.headers);
        let json = kind.as_deref() == Some("application/json");
        if !json && kind.as_deref().is_some_and(|k| k != "application/x-www-form-urlencoded") {
            let text =
                format!("upload 'Content-Type '{}' not implemented", kind.unwrap_or_default());
            return Err(Refusal::text(506, text));
        }
        let bytes = body
            .collect()
            .await
            .map_err(|_| Refusal::text(400, "the body could not be read"))?
            .to_bytes();
        given = if json { from_json(&bytes)? } else { from_form(&bytes) };
    }
    given.extend(from_form(head.uri.query().unwrap_or_default().as_bytes()));
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    Ok(Asked { method, path, segments, given, auth })
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn from_form(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        given
            .entry(name.into_owned())
            .and_modify(|list| {
                list.push('\0');
                list.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    given
}

fn from_json(bytes: &[u8]) -> Result<BTreeMap<String, String>, Refusal> {
    let parsed: Value = serde_json::from_slice(bytes).map_err(|error| {
        let offset = error.column().saturating_sub(1);
        let rest: String = String::from_utf8_lossy(bytes).chars().skip(offset).take(20).collect();
        Refusal::text(
            500,
            format!(
                "'\"' expected, at character offset {offset} (before \"{rest}\") at \
                 /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934."
            ),
        )
    })?;
    let Value::Object(members) = parsed else {
        return Err(Refusal::text(500, "malformed JSON parameters"));
    };
    let mut given = BTreeMap::new();
    for (name, value) in members {
        if let Some(text) = scalar(&value) {
            given.insert(name, text);
        }
    }
    Ok(given)
}

fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => if *flag { "1" } else { "0" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(scalar).collect::<Vec<_>>().join("\0"),
        other => other.to_string(),
    })
}

/// Who calls. Only the login itself needs nobody.
fn authenticate(
    sim: &Sim,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Option<Auth>, Refusal> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let denied = || Refusal::empty(401, "Authentication failed!");
    if let Some(rest) = authorization.and_then(|text| text.strip_prefix("PVEAPIToken")) {
        let auth = rest
            .strip_prefix(['=', ' '])
            .and_then(|token| sim.world().access.token_auth(token, sim.now()))
            .ok_or_else(denied)?;
        let closed = routes::closed_to_tokens(path);
        return if closed {
            Err(Refusal::new(
                403,
                format!(
                    "Permission check failed (URI '{path}' not available with API token, need \
                     proper ticket."
                ),
            ))
        } else {
            Ok(Some(auth))
        };
    }
    if path == "/access/ticket" {
        return Ok(None);
    }
    let ticket = authorization
        .and_then(|text| text.strip_prefix("PVEAuthCookie="))
        .map(str::to_owned)
        .or_else(|| cookie_ticket(headers))
        .ok_or_else(|| Refusal::empty(401, "No ticket"))?;
    let user = sim.tickets.check(&ticket, sim.now()).ok_or_else(denied)?;
    if !sim.world().access.users.contains_key(&user) {
        return Err(denied());
    }
    if method != Method::GET && method != Method::HEAD {
        let token = headers.get("CSRFPreventionToken").and_then(|value| value.to_str().ok());
        if !token.is_some_and(|token| sim.tickets.check_csrf(token, &user, sim.now())) {
            return Err(Refusal::empty(401, "Permission denied - invalid csrf token"));
        }
    }
    Ok(Some(Auth { user, token: None }))
}

fn cookie_ticket(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix("PVEAuthCookie="))
        .map(|ticket| percent_decode_str(ticket).decode_utf8_lossy().into_owned())
}
