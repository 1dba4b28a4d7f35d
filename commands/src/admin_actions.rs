//! Writes down what an administrator did when nothing else in the log says so.

use proximity_domain::admin_action::{Event, STREAM};
use proximity_eventstore::{AppendError, Outcome, Store};
use uuid::Uuid;

use crate::once::is_refusal;
use crate::policy::Admin;
use crate::single::single;
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
    let key = actor.once.as_ref();
    let stream = (STREAM, actor.request.clone().unwrap_or_else(|| id.to_string()));
    let mut append = single(id, actor.lane(), stream, &event, &actor.metadata(call))?;
    append.idempotency = key.and_then(|once| once.mark(actor));
    match store.append(append.clone()).await {
        Ok(Outcome::Stored(_)) => {
            if let Some(once) = key {
                once.take();
            }
            return Ok(());
        }
        // Another request of the key, at another server, was carried out and stored at the same time.
        Ok(Outcome::Replayed { answer, .. }) if !is_refusal(answer.as_deref()) => return Ok(()),
        // It has been refused, or taken for something else, meanwhile: this was done all the same.
        Ok(Outcome::Replayed { .. }) | Err(AppendError::KeyReused) => {}
        Err(error) => return Err(error.into()),
    }
    append.idempotency = None;
    store.append(append).await?;
    Ok(())
}
