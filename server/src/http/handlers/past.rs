//! Time travel: an application as it was, and what changed between two moments, by whom.

use proximity_eventstore::{Position, Recorded};
use proximity_projections::applications::after;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use crate::http::call::Call;
use crate::http::events::{self, Shown};
use crate::http::position::Wanted;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// Between which moments.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffWanted {
    /// A moment (RFC 3339) or a position of the log.
    pub from: String,
    /// The same; now by default.
    pub to: Option<String>,
}

/// What changed between two moments.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diff {
    /// The application.
    pub app_id: String,
    /// Whether it was there at the first of them.
    pub existed_before: bool,
    /// Whether it was there at the second.
    pub existed_after: bool,
    /// What is different, by place.
    pub changes: Vec<Change>,
    /// What happened to it and for it in between, and who did it; oldest first.
    pub events: Vec<Shown>,
}

/// One value that is different.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// JSON pointer (RFC 6901) into the application.
    #[schema(example = "/status")]
    pub pointer: String,
    /// Null when it was not there.
    pub before: Value,
    /// Null when it is not there.
    pub after: Value,
}

/// A moment: where the log stood, or what its clock said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Position(Position),
    /// µs since 1970.
    Time(i64),
}

impl Moment {
    fn covers(self, event: &Recorded) -> bool {
        match self {
            Self::Position(position) => event.position <= position,
            Self::Time(micros) => event.recorded_at <= micros,
        }
    }
}

async fn moment(call: &Call, name: &str, text: &str) -> Result<Moment, Problem> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        let micros = i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        return Ok(Moment::Time(micros));
    }
    let Ok(wanted) = text.parse::<Wanted>() else {
        let detail = format!("{name} is a moment as in RFC 3339, or a position of the log");
        return Err(Problem::new("query.malformed", detail));
    };
    call.app.wait_for(&wanted).await?;
    Ok(Moment::Position(wanted.position))
}

fn state(call: &Call, id: &str, events: &[Recorded], at: Moment) -> Result<Value, Problem> {
    let until: Vec<Recorded> = events.iter().filter(|event| at.covers(event)).cloned().collect();
    let failed = |what: String| {
        tracing::error!(application = id, request = call.request_id, what, "a past cannot be told");
        Problem::internal()
    };
    match after(id, &until).map_err(|error| failed(error.to_string()))? {
        None => Ok(Value::Null),
        Some(app) => serde_json::to_value(app).map_err(|error| failed(error.to_string())),
    }
}

/// The application as it was at a moment.
pub(super) async fn shown(call: &Call, at: &str) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let events = events::of_application(&call.app.store, &call.actor, &id).await?;
    let at = moment(call, "at", at).await?;
    match state(call, &id, &events, at)? {
        Value::Null => Err(Problem::not_found()),
        app => Reply::json(&app),
    }
}

/// What changed between two moments, and by whom.
#[utoipa::path(get, path = "/api/apps/{id}/diff", tag = "apps", params(("id" = String, Path, description = "The application's id"), DiffWanted), responses((status = 200, description = "What changed", body = Diff)))]
pub async fn diff(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let events = events::of_application(&call.app.store, &call.actor, &id).await?;
    let wanted: DiffWanted = call.query()?;
    let from = moment(&call, "from", &wanted.from).await?;
    let to = match &wanted.to {
        Some(to) => moment(&call, "to", to).await?,
        None => Moment::Position(Position::MAX),
    };
    let before = state(&call, &id, &events, from)?;
    let now = state(&call, &id, &events, to)?;
    let mut changes = Vec::new();
    compare("", &before, &now, &mut changes);
    let between = events.iter().filter(|event| to.covers(event) && !from.covers(event));
    Reply::json(&Diff {
        existed_before: !before.is_null(),
        existed_after: !now.is_null(),
        changes,
        events: between.map(Shown::of).collect(),
        app_id: id,
    })
}

/// Collects the places where two values differ.
fn compare(pointer: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let value = |of: &serde_json::Map<String, Value>| of.get(name).cloned();
            let (old, new) = (value(old).unwrap_or_default(), value(new).unwrap_or_default());
            compare(&place, &old, &new, changes);
        }
    } else if before != after {
        let (before, after) = (before.clone(), after.clone());
        changes.push(Change { pointer: pointer.to_owned(), before, after });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_a_change_and_each_has_its_place() {
        let mut changes = Vec::new();
        let (old, new) =
            (json!({"a": {"b/c": 1, "d": 2}, "e": []}), json!({"a": {"d": 2}, "e": [1]}));
        compare("", &old, &new, &mut changes);
        let places: Vec<&str> = changes.iter().map(|change| change.pointer.as_str()).collect();
        assert_eq!(places, ["/a/b~1c", "/e"]);
        assert_eq!((&changes[0].before, &changes[0].after), (&json!(1), &Value::Null));
    }
}
