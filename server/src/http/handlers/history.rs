//! What has happened: as a live stream, of one application, and by whatever is looked for.

use std::collections::HashSet;

use proximity_eventstore::{Position, Recorded};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::page::within;
use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::events::{self, Shown};
use crate::http::position::Wanted;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::streams;

/// Events read at once.
const PAGE: usize = 1_000;
/// Events looked through for one answer; whoever wants more asks again from `next` on.
const LOOKED_THROUGH: usize = 50_000;

/// Where a stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamWanted {
    /// A position to begin after; the header `Last-Event-ID` counts before it. By default only what
    /// happens from now on is sent.
    pub after: Option<String>,
}

/// What has happened to an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// The application.
    pub app_id: String,
    /// Oldest first, those of its operations included.
    pub events: Vec<Shown>,
    /// How many.
    pub total: usize,
}

/// Which events are looked for; all that are named have to fit.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsWanted {
    /// Only events after this position; 0 by default.
    pub after: Option<Position>,
    /// 1 to 1000; 100 by default.
    pub limit: Option<i64>,
    /// Who did it, e.g. `user/7`.
    pub actor: Option<String>,
    /// Only those of this application and its operations.
    pub app: Option<String>,
    /// The event's name, or the part before its dot.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// RFC 3339: not before this.
    pub from: Option<String>,
    /// RFC 3339: before this.
    pub to: Option<String>,
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Shown>,
    /// For `after` of the next page.
    pub next: Position,
    /// Whether the log was looked through to its end.
    pub complete: bool,
}

/// Server-sent events: all that the caller may see, as it happens. Each `id` is a position of the
/// log; coming back with it as `Last-Event-ID` loses and repeats nothing.
#[utoipa::path(get, path = "/api/events/stream", tag = "events", params(StreamWanted), responses((status = 200, description = "A stream without end; each message's data is an event, a sign of life comes every 15 s", body = String, content_type = "text/event-stream")))]
pub async fn stream(call: Call) -> Result<Reply, Problem> {
    let wanted: StreamWanted = call.query()?;
    let after = match call.presented.last_event_id.clone().or(wanted.after) {
        None => call.app.store.head().await.map_err(unavailable)?,
        Some(after) => {
            let after: Wanted = after.parse()?;
            call.app.wait_for(&after).await?;
            after.position
        }
    };
    let token = call
        .presented
        .access
        .clone()
        .ok_or_else(|| Problem::from(proximity_commands::Error::Unauthenticated))?;
    let messages = streams::open(&call.app, call.actor.clone(), token, after)?;
    Ok(Reply::stream("text/event-stream", messages))
}

/// All that has happened to it and for it; its owner sees it when it is gone, too.
#[utoipa::path(get, path = "/api/apps/{id}/history", tag = "apps", params(("id" = String, Path, description = "The application's id")), responses((status = 200, description = "Its past", body = History)))]
pub async fn of_app(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let events = events::of_application(&call.app.store, &call.actor, &id).await?;
    let events: Vec<Shown> = events.iter().map(Shown::of).collect();
    Reply::json(&History { app_id: id, total: events.len(), events })
}

/// The log: all of it for administrators, what is about their own things for others.
#[utoipa::path(get, path = "/api/audit/events", tag = "events", params(EventsWanted), responses((status = 200, description = "A page of it", body = Events)))]
pub async fn audit(call: Call) -> Result<Reply, Problem> {
    let wanted: EventsWanted = call.query()?;
    let limit = within("limit", wanted.limit, 100, 1, 1_000)? as usize;
    let moment = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000).ok())
            .map(Some)
            .ok_or_else(|| {
                let detail =
                    format!("{name} is a moment as in RFC 3339, e.g. 2030-01-31T12:00:00Z");
                Problem::new("query.malformed", detail)
            }),
    };
    let (from, to) = (moment("from", &wanted.from)?, moment("to", &wanted.to)?);
    let of_app: Option<HashSet<Position>> = match &wanted.app {
        None => None,
        Some(app) => {
            let found = events::of_application(&call.app.store, &call.actor, app).await?;
            Some(found.iter().map(|event| event.position).collect())
        }
    };
    let fits = |event: &Recorded| {
        let kind = |wanted: &String| {
            event.event_type == *wanted
                || event.event_type.split('.').next() == Some(wanted.as_str())
        };
        events::is_visible(event, &call.actor)
            && from.is_none_or(|from| event.recorded_at >= from)
            && to.is_none_or(|to| event.recorded_at < to)
            && wanted.event_type.as_ref().is_none_or(kind)
            && of_app.as_ref().is_none_or(|found| found.contains(&event.position))
            && wanted.actor.as_ref().is_none_or(|actor| {
                events::metadata(event).get("actor").and_then(|name| name.as_str())
                    == Some(actor.as_str())
            })
    };
    let after = wanted.after.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(Problem::field("/after", "query.out_of_range", "there is no such position"));
    }
    let (mut found, mut next, mut looked) = (Vec::new(), after, 0);
    let complete = loop {
        let page = call.app.store.feed(next, PAGE).await.map_err(unavailable)?;
        looked += page.len();
        let is_last = page.len() < PAGE;
        let mut full = false;
        for event in page {
            next = event.position;
            if fits(&event) {
                found.push(Shown::of(&event));
            }
            if found.len() == limit {
                full = true;
                break;
            }
        }
        if full || looked >= LOOKED_THROUGH || is_last {
            break is_last && !full;
        }
    };
    Reply::json(&Events { events: found, next, complete })
}
