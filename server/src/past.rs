//! Time travel: an application as it was at a moment, and what is different between two of them.

use proximity_eventstore::{Error as StoreError, Position, Recorded, Store};
use proximity_projections::applications::after;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::http::events::Shown;

/// A moment: where the log stood, or what its clock said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Position(Position),
    /// µs since 1970.
    Time(i64),
}

impl Moment {
    /// The end of the log, wherever that is.
    pub const NOW: Self = Self::Position(Position::MAX);

    /// Whether both are of one kind, and this is the later one.
    fn is_after(self, other: Self) -> bool {
        match (self, other) {
            (Self::Position(this), Self::Position(other)) => this > other,
            (Self::Time(this), Self::Time(other)) => this > other,
            _ => false,
        }
    }

    /// Where the log stood then. It is the one answer for whatever is told of the past, so that all of it
    /// is of one state that the log had (`docs/adr/0035-a-moment-is-a-place-in-the-log.md`).
    pub async fn place(self, store: &Store) -> Result<Position, StoreError> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(micros) => store.place(micros).await,
        }
    }
}

/// Where the log stood at two moments; `None` when the first is the later one.
pub async fn places(
    store: &Store,
    from: Moment,
    to: Moment,
) -> Result<Option<(Position, Position)>, StoreError> {
    let (first, last) = (from.place(store).await?, to.place(store).await?);
    Ok((first <= last && !from.is_after(to)).then_some((first, last)))
}

/// µs since 1970 of a moment as in RFC 3339.
pub fn micros(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX))
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

impl Diff {
    /// What is different, field by field also where the application was not there at one of the moments.
    pub fn by_field(&self) -> Vec<Change> {
        let empty = |value: &Value| match value {
            Value::Null => Value::Object(serde_json::Map::new()),
            other => other.clone(),
        };
        let mut changes = Vec::new();
        for change in &self.changes {
            let (before, after) = match change.pointer.as_str() {
                "" => (empty(&change.before), empty(&change.after)),
                _ => (change.before.clone(), change.after.clone()),
            };
            compare(&change.pointer, &before, &after, &mut changes);
        }
        changes
    }
}

/// How many of these events, which are in the log's order, stood in it then.
fn happened(events: &[Recorded], at: Position) -> usize {
    events.partition_point(|event| event.position <= at)
}

/// The application when the log stood there, of all its events and its operations'; null when it was not
/// there.
pub fn state(id: &str, events: &[Recorded], at: Position) -> Result<Value, String> {
    match after(id, &events[..happened(events, at)]).map_err(|error| error.to_string())? {
        None => Ok(Value::Null),
        Some(app) => serde_json::to_value(app).map_err(|error| error.to_string()),
    }
}

/// What changed from where the log stood to where it stood later, and by whom.
pub fn diff(
    id: &str,
    events: &[Recorded],
    (from, to): (Position, Position),
    show: impl Fn(&Recorded) -> Option<Shown>,
) -> Result<Diff, String> {
    let (first, last) = (happened(events, from), happened(events, to.max(from)));
    let (before, now) = (state(id, events, from)?, state(id, events, to)?);
    let mut changes = Vec::new();
    compare("", &before, &now, &mut changes);
    Ok(Diff {
        app_id: id.to_owned(),
        existed_before: !before.is_null(),
        existed_after: !now.is_null(),
        changes,
        events: events[first..last].iter().filter_map(show).collect(),
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

    #[test]
    fn an_application_that_is_gone_is_told_field_by_field() {
        let of = |before: Value, after: Value| {
            let mut changes = Vec::new();
            compare("", &before, &after, &mut changes);
            let (app_id, events) = ("a".to_owned(), Vec::new());
            let (existed_before, existed_after) = (!before.is_null(), !after.is_null());
            let diff = Diff { app_id, existed_before, existed_after, changes, events };
            let told = diff.by_field().into_iter();
            told.map(|one| (one.pointer, one.before, one.after)).collect::<Vec<_>>()
        };
        let app = || json!({"id": "a", "ports": {"80": 8_100}, "problem": null});
        let (id, port) = ("/id".to_owned(), "/ports/80".to_owned());
        let gone = of(app(), Value::Null);
        assert_eq!(gone[0], (id.clone(), json!("a"), Value::Null));
        assert_eq!(gone[1], ("/ports".to_owned(), json!({"80": 8_100}), Value::Null));
        assert_eq!(of(Value::Null, app())[0], (id, Value::Null, json!("a")));
        let changed = of(app(), json!({"id": "a", "ports": {"80": 8_101}, "problem": null}));
        assert_eq!(changed, [(port, json!(8_100), json!(8_101))]);
    }
}
