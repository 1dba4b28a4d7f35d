//! What has happened: as a live stream, of one application, and by whatever is looked for.

use proximity_eventstore::{Position, Recorded, Search};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::within;
use crate::app::unavailable;
use crate::filters;
use crate::http::call::Call;
use crate::http::events::{self, Shown};
use crate::http::export::{self, Form};
use crate::http::own_acts;
use crate::http::position::Wanted;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::streams::{self, Credential};
use crate::past;

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
    /// Only events after this position; 0 by default. Once the log was restored from a backup, with its
    /// incarnation, as `next` has it.
    pub after: Option<String>,
    /// Only events up to this position, which is written like `after`.
    pub until: Option<String>,
    /// 1 to 1000; 100 by default. As lines, at most so many; all by default.
    pub limit: Option<i64>,
    /// Who did it, e.g. `user/7`.
    pub actor: Option<String>,
    /// Whose things they are about: a user's id.
    pub owner: Option<String>,
    /// Only those of this application, and of what was done to it or for it.
    pub app: Option<String>,
    /// Only those that this request brought about at once.
    pub request: Option<String>,
    /// The event's name, or the part before its dot.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// RFC 3339: not before this.
    pub from: Option<String>,
    /// RFC 3339: before this.
    pub to: Option<String>,
    /// `json`, `ndjson` or `csv`; by default what the `Accept` header asks for.
    pub format: Option<String>,
}

/// Where a page ended: a position, and once the log was restored from a backup with the incarnation
/// that it is of (`<incarnation>.<position>`).
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Next {
    /// There was one life of the log.
    Position(Position),
    /// There were several.
    OfLife(String),
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Shown>,
    /// For `after` of the next page, and once it is complete for going on with a later `until` or `to`,
    /// which passes nothing over. Where a clock was set back and `to` is a bound, it stands before the first
    /// event that is not before `to`, also when that is before `after`: some events then come once more.
    pub next: Next,
    /// Whether there is nothing more within the bounds, or up to the end of the log: the end of all pages.
    pub complete: bool,
}

/// Server-sent events: all of it for administrators, what is about their own things for others, as it
/// happens; not what they did to a thing that is somebody else's, which `/api/audit/events` has. Each `id` is
/// a position of the log; coming back with it as `Last-Event-ID` loses and repeats nothing. Once the log was
/// restored from a backup, its ids name the incarnation, too (`<incarnation>.<position>`), and an id that may
/// be of the log before that is refused: what came after it is not what is in the log now. The stream ends
/// with the session or the token that it was opened with; its connection is closed then, and also when nothing
/// is taken from it for half a minute.
#[utoipa::path(get, path = "/api/events/stream", tag = "events", params(StreamWanted), responses((status = 200, description = "A stream without end; each message's data is an event, a sign of life comes every 15 s", body = String, content_type = "text/event-stream")))]
pub async fn stream(call: Call) -> Result<Reply, Problem> {
    let wanted: StreamWanted = call.query()?;
    let after = match (&call.presented.last_event_id, &wanted.after) {
        (None, None) => call.app.store.head().await.map_err(unavailable)?,
        (Some(id), _) => begun(&call, "Last-Event-ID", id).await?,
        (None, Some(after)) => begun(&call, "after", after).await?,
    };
    let reader = reader(&call)?;
    let messages = streams::open(&call.app, reader, after)?;
    Ok(Reply::live("text/event-stream", messages))
}

/// Where a stream goes on.
async fn begun(call: &Call, name: &'static str, after: &str) -> Result<Position, Problem> {
    let after = Wanted::read(name, after)?;
    call.app.wait_for(&after).await?;
    Ok(after.position)
}

/// Who reads for longer than one look at the token is good for.
fn reader(call: &Call) -> Result<Credential, Problem> {
    let token = call.presented.access.clone();
    let token = token.ok_or(proximity_commands::Error::Unauthenticated)?;
    Ok(Credential { actor: call.actor.clone(), token, peer: call.peer.clone() })
}

/// What has happened to it, and what was done for it and is about the caller's own things; administrators
/// see all of that. Its owner sees it when it is gone, too. That a copy of it for somebody else was taken back
/// stands in `/api/audit/events` and in the trace of that request only.
#[utoipa::path(get, path = "/api/apps/{id}/history", tag = "apps", params(("id" = String, Path, description = "The application's id")), responses((status = 200, description = "Its past", body = History)))]
pub async fn of_app(call: Call) -> Result<Reply, Problem> {
    let (id, store): (String, _) = (call.param("id")?, &call.app.store);
    events::prove_application(store, &call.actor, &id).await?;
    let events = events::of_application(store, &id).await.map_err(unavailable)?;
    let seen =
        |event: &&Recorded| events::is_of(event, &id) || events::is_visible(event, &call.actor);
    let events: Vec<Shown> =
        events.iter().filter(seen).map(|event| Shown::to(event, &call.actor)).collect();
    Reply::json(&History { app_id: id, total: events.len(), events })
}

/// The log: all of it for administrators, what is about their own things for others, and that they have
/// taken back a copy of one of those that was somebody else's. With `format`,
/// or an `Accept` header that asks for it, all that fits is answered as NDJSON or CSV.
#[utoipa::path(get, path = "/api/audit/events", tag = "events", params(EventsWanted), responses((status = 200, description = "A page of it; all of it, as lines, in the other forms", content((Events = "application/json"), (String = "application/x-ndjson"), (String = "text/csv")))))]
pub async fn audit(call: Call) -> Result<Reply, Problem> {
    let wanted: EventsWanted = call.query()?;
    let form = Form::wanted(wanted.format.as_deref(), call.presented.accept.as_deref())?;
    let search = search(&call, &wanted).await?;
    if let Some(form) = form {
        let most = match wanted.limit {
            None => u64::MAX,
            limit => within("limit", limit, 1, 1, u32::MAX)?.into(),
        };
        let lines = export::open(&call.app, reader(&call)?, search, form, most)?;
        return Ok(Reply::parts(form.content_type(), lines).file(form.file()));
    }
    let limit = within("limit", wanted.limit, 100, 1, 1_000)? as usize;
    let found = own_acts::search(&call.app.store, &search, limit).await.map_err(unavailable)?;
    let events = found.events.iter().map(|event| Shown::to(event, &call.actor)).collect();
    let next = call.app.lives.next(found.next);
    Reply::json(&Events { events, next, complete: found.complete })
}

/// What is looked for, within what the caller may see.
async fn search(call: &Call, wanted: &EventsWanted) -> Result<Search, Problem> {
    let moment = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => past::micros(text).map(Some).ok_or_else(|| {
            let detail = format!("{name} is a moment as in RFC 3339, e.g. 2030-01-31T12:00:00Z");
            Problem::new("query.malformed", detail)
        }),
    };
    let until = match &wanted.until {
        None => None,
        Some(until) => {
            // It may be beyond the end, where events will be.
            let until = Wanted::read("until", until)?;
            call.app.lives.check(&until)?;
            Some(until.position)
        }
    };
    if until.is_some_and(|position| i64::try_from(position).is_err()) {
        return Err(Problem::field("?until", "query.out_of_range", "there is no such position"));
    }
    let after = match &wanted.after {
        None => 0,
        Some(after) => {
            let after = Wanted::read("after", after)?;
            // Beyond the end nothing would be found, and what comes there later would be passed over.
            call.app.knows(&after).await?;
            after.position
        }
    };
    let bounds = |name: &str, within: Result<(), String>| {
        within.map_err(|why| Problem::field(format!("?{name}"), "query.out_of_range", why))
    };
    let (from, to) = (moment("from", &wanted.from)?, moment("to", &wanted.to)?);
    bounds("until", filters::positions(after, until))?;
    bounds("to", filters::moments(from, to))?;
    let checked = |name: &str, text: &Option<String>, check: fn(&str) -> Result<String, String>| {
        let refuse = |detail| Problem::field(format!("?{name}"), "value.invalid", detail);
        text.as_deref().map(check).transpose().map_err(refuse)
    };
    let mut search = Search {
        after,
        until,
        actor: checked("actor", &wanted.actor, filters::actor)?,
        owner: checked("owner", &wanted.owner, filters::owner)?,
        request: checked("request", &wanted.request, filters::request)?,
        from,
        to,
        ..Search::default()
    };
    if let Some(wanted) = checked("type", &wanted.event_type, filters::event_type)? {
        search.of_type(&wanted);
    }
    if let Some(own) = call.only_of() {
        search.seen_by = Some(own.to_string());
    }
    if let Some(app) = &wanted.app {
        events::prove_application(&call.app.store, &call.actor, app).await?;
        let around = events::around(app);
        (search.around, search.outliving) = (around.around, around.outliving);
    }
    Ok(search)
}
