//! Events as they are shown: who may see one, and what of it.

use proximity_commands::policy::Admin;
use proximity_commands::{Actor, Error};
use proximity_eventstore::{Error as StoreError, Position, Recorded, Search, Store};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::own_acts;
use super::problem::Problem;
use crate::moment::rfc3339;

/// Events read at once.
const PAGE: usize = 1_000;

/// Something that has happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shown {
    /// Its place in the log: dense, from 1.
    pub position: Position,
    /// What it happened to: kind and id.
    #[schema(example = "application/nginx-0a1b2c3d")]
    pub stream: String,
    /// Its place in that stream, from 1.
    pub sequence: u64,
    /// Its name.
    #[schema(example = "application.deployed")]
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version of its shape.
    pub version: String,
    /// RFC 3339.
    pub recorded_at: String,
    /// Who did it: `user/7`, `system/…`, `anonymous`.
    pub actor: Option<String>,
    /// For whom, when that is someone else.
    pub on_behalf_of: Option<String>,
    /// What was shown to prove it: `session/…`, `token/…`, `password`; told to whoever acted, and administrators.
    pub credential: Option<String>,
    /// The address that it came from; told to whoever acted, to administrators,
    /// and of a login to the one in whose name it was.
    pub source: Option<String>,
    /// Whose thing it is about: a user's id.
    pub owner: Option<String>,
    /// What was asked for.
    pub command: Option<String>,
    /// The request that it came with.
    pub request: Option<String>,
    /// What all events of one endeavour share, e.g. an operation's id.
    pub correlation: Option<String>,
    /// What it follows from.
    pub causation: Option<String>,
    /// What it says: an object, or a text where there is nothing more to say; never a secret.
    pub payload: Value,
}

/// The metadata of an event; what cannot be read is empty, and then nobody's but an admin's to see.
pub fn metadata(event: &Recorded) -> Map<String, Value> {
    serde_json::from_str(&event.metadata).unwrap_or_default()
}

impl Shown {
    /// An event for this reader: where somebody else came from is nobody's but an administrator's. A
    /// login in the reader's name is the reader's to know: it may have been somebody else.
    pub fn to(event: &Recorded, reader: &Actor) -> Self {
        let mut shown = Self::of(event);
        let name = reader.user().map(|user| user.to_string());
        let is_login = shown.actor.as_deref() == Some("anonymous")
            && name.is_some()
            && shown.on_behalf_of == name;
        let own = is_login || shown.actor.as_deref() == Some(&reader.name());
        if Admin::prove(reader).is_err() && !own {
            (shown.credential, shown.source) = (None, None);
        }
        shown
    }

    /// An event as it stands in the log.
    pub fn of(event: &Recorded) -> Self {
        let metadata = metadata(event);
        let field = |name: &str| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            position: event.position,
            stream: format!("{}/{}", event.aggregate_type, event.aggregate_id),
            sequence: event.sequence,
            event_type: event.event_type.clone(),
            version: event.event_version.clone(),
            recorded_at: rfc3339(event.recorded_at),
            actor: field("actor"),
            on_behalf_of: field("on_behalf_of"),
            credential: field("credential"),
            source: field("source"),
            owner: field("owner"),
            command: field("command"),
            request: field("request"),
            correlation: field("correlation"),
            causation: field("causation"),
            payload: serde_json::from_str(&event.payload).unwrap_or(Value::Null),
        }
    }
}

/// Whether the reader may see it: it is about something of the reader's own, which never changes
/// hands, or the reader is an administrator.
pub fn is_visible(event: &Recorded, reader: &Actor) -> bool {
    if Admin::prove(reader).is_ok() {
        return true;
    }
    let Some(user) = reader.user() else { return false };
    metadata(event).get("owner").and_then(Value::as_str) == Some(user.to_string().as_str())
}

/// Those that the reader may see, with the own acts on what is another's.
pub async fn seen(
    store: &Store,
    events: Vec<Recorded>,
    reader: &Actor,
) -> Result<Vec<Recorded>, StoreError> {
    let user = reader.user().map(|user| user.to_string());
    let mut seen = Vec::with_capacity(events.len());
    for event in events {
        let is_seen = match &user {
            Some(user) if !is_visible(&event, reader) => {
                own_acts::is_one(store, &event, user).await?
            }
            _ => is_visible(&event, reader),
        };
        if is_seen {
            seen.push(event);
        }
    }
    Ok(seen)
}

/// Whether it may have changed who somebody is.
pub fn is_about_identity(event: &Recorded) -> bool {
    matches!(event.aggregate_type.as_str(), "user" | "session" | "api_token")
}

/// Refuses to whom this application never belonged: to them it does not exist. To its owner its past
/// is there when it is gone.
pub async fn prove_application(store: &Store, reader: &Actor, id: &str) -> Result<(), Problem> {
    if was_own(store, reader, "application", id.to_owned()).await? {
        Ok(())
    } else {
        Err(Error::NotFound.into())
    }
}

/// Whether something is or was the reader's, by its first event, or the reader is an administrator.
pub async fn was_own(
    store: &Store,
    reader: &Actor,
    kind: &str,
    id: String,
) -> Result<bool, Problem> {
    let first = first(store, kind, id).await.map_err(crate::app::unavailable)?;
    Ok(first.is_some_and(|first| is_visible(&first, reader)))
}

/// The first event of a thing.
pub async fn first(store: &Store, kind: &str, id: String) -> Result<Option<Recorded>, StoreError> {
    let first = Search { stream: Some((kind.to_owned(), id)), ..Search::default() };
    Ok(store.search(&first, 1).await?.events.into_iter().next())
}

/// An application's events, and those of what was done to it or for it. Its backups go on when it has
/// ended: what is done to them then is found with it, too.
pub fn around(id: &str) -> Search {
    Search {
        around: Some(("application".to_owned(), id.to_owned())),
        outliving: Some("backup".to_owned()),
        ..Search::default()
    }
}

/// All events of an application, and of what was done to it or for it, in order.
pub async fn of_application(store: &Store, id: &str) -> Result<Vec<Recorded>, StoreError> {
    let mut search = around(id);
    let mut events = Vec::new();
    loop {
        let mut found = store.search(&search, PAGE).await?;
        events.append(&mut found.events);
        search.after = found.next;
        if found.complete {
            return Ok(events);
        }
    }
}

/// Whether it is an event of the application itself.
pub fn is_of(event: &Recorded, application: &str) -> bool {
    event.aggregate_type == "application" && event.aggregate_id == application
}
