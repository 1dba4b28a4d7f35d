//! Writes down what an administrator did when nothing else in the log says so.

use proximity_domain::admin_action::{Event, STREAM};
use proximity_eventstore::Store;
use uuid::Uuid;

use crate::policy::Admin;
use crate::single::{single, store_once};
use crate::{Actor, Error};

/// Stores one action, by the route and the path that was called; with an idempotency key, once for
/// all requests of that key.
pub async fn note(
    store: &Store,
    admin: &Admin,
    call: &'static str,
    path: &str,
) -> Result<(), Error> {
    let actor: &Actor = admin.actor();
    let event = Event::Performed { call: call.to_owned(), path: path.to_owned() };
    let id = Uuid::now_v7();
    let stream = (STREAM, actor.request.clone().unwrap_or_else(|| id.to_string()));
    let append = single(id, actor.lane(), stream, &event, &actor.metadata(call))?;
    store_once(store, actor, append).await.map(drop)
}
