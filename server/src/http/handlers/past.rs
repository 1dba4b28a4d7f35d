//! Time travel: an application as it was, and what changed between two moments, by whom.

use proximity_eventstore::Recorded;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::events::{self, Shown};
use crate::http::position::Wanted;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::past::{self, Diff, Moment};

/// Between which moments.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffWanted {
    /// A position of the log, or a moment (RFC 3339), which is where its last event stands that is not later.
    /// Once the log was restored from a backup, a position with its incarnation (`<incarnation>.<position>`).
    pub from: String,
    /// The same; now by default.
    pub to: Option<String>,
}

async fn moment(call: &Call, name: &'static str, text: &str) -> Result<Moment, Problem> {
    if let Some(micros) = past::micros(text) {
        return Ok(Moment::Time(micros));
    }
    let Ok(wanted) = Wanted::read(name, text) else {
        let detail = format!("{name} is a moment as in RFC 3339, or a position of the log");
        return Err(Problem::new("query.malformed", detail));
    };
    call.app.wait_for(&wanted).await?;
    Ok(Moment::Position(wanted.position))
}

fn untold(call: &Call, what: &str) -> Problem {
    tracing::error!(request = call.request_id, what, "a past cannot be told");
    Problem::internal()
}

/// The application as it was at a moment.
pub(super) async fn shown(call: &Call, at: &str) -> Result<Reply, Problem> {
    let (id, store): (String, _) = (call.param("id")?, &call.app.store);
    events::prove_application(store, &call.actor, &id).await?;
    let at = moment(call, "at", at).await?.place(store).await.map_err(unavailable)?;
    let events = events::of_application(store, &id).await.map_err(unavailable)?;
    match past::state(&id, &events, at).map_err(|what| untold(call, &what))? {
        Value::Null => Err(Problem::not_found()),
        app => Reply::json(&app),
    }
}

/// What changed between two moments, and by whom.
#[utoipa::path(get, path = "/api/apps/{id}/diff", tag = "apps", params(("id" = String, Path, description = "The application's id"), DiffWanted), responses((status = 200, description = "What changed", body = Diff)))]
pub async fn diff(call: Call) -> Result<Reply, Problem> {
    let (id, store): (String, _) = (call.param("id")?, &call.app.store);
    events::prove_application(store, &call.actor, &id).await?;
    let wanted: DiffWanted = call.query()?;
    let from = moment(&call, "from", &wanted.from).await?;
    let to = match &wanted.to {
        Some(to) => moment(&call, "to", to).await?,
        None => Moment::NOW,
    };
    let Some(places) = past::places(store, from, to).await.map_err(unavailable)? else {
        return Err(Problem::field("?from", "query.out_of_range", "from is later than to"));
    };
    let events = events::of_application(store, &id).await.map_err(unavailable)?;
    let show = |event: &Recorded| {
        let seen = events::is_of(event, &id) || events::is_visible(event, &call.actor);
        seen.then(|| Shown::to(event, &call.actor))
    };
    let diff = past::diff(&id, &events, places, show).map_err(|what| untold(&call, &what))?;
    Reply::json(&diff)
}
