//! What somebody has done to a thing that is another's: whose application is copied for somebody else may
//! take that back, and finds it among the own acts, though not what came of it.

use proximity_domain::operation::Event as Operation;
use proximity_domain::plan::Plan;
use proximity_eventstore::{Error as StoreError, Found, Recorded, Search, Store};

use super::events::{first, metadata};

/// The one event that anybody but an administrator can cause on what is not the own.
const ACT: &str = "operation.cancel_requested";

/// Whether it is such an act of this user's. The acts of an administrator who is none any more are not:
/// they were not done by the right that is looked for here.
pub async fn is_one(store: &Store, event: &Recorded, user: &str) -> Result<bool, StoreError> {
    let said = metadata(event);
    let by = said.get("actor").and_then(|actor| actor.as_str());
    if event.event_type != ACT || by.and_then(|by| by.strip_prefix("user/")) != Some(user) {
        return Ok(false);
    }
    let Some(planned) = first(store, "operation", event.aggregate_id.clone()).await? else {
        return Ok(false);
    };
    let Ok(Operation::Planned { plan: Plan::Clone(plan), .. }) =
        serde_json::from_str(&planned.payload)
    else {
        return Ok(false);
    };
    let source = first(store, "application", plan.source.to_string()).await?;
    let owner = source.and_then(|source| metadata(&source).remove("owner"));
    Ok(owner.is_some_and(|owner| owner.as_str() == Some(user)))
}

/// What `Store::search` finds, and with `seen_by` such acts of that user, too: a second look at the
/// indexes for a kind of event that is rare.
pub async fn search(store: &Store, wanted: &Search, limit: usize) -> Result<Found, StoreError> {
    let mut found = store.search(wanted, limit).await?;
    let Some(user) = &wanted.seen_by else { return Ok(found) };
    let Some(mut acts) = acts(wanted, user) else { return Ok(found) };
    acts.until = Some(found.reached);
    let mut more = Vec::new();
    let next = loop {
        let page = store.search(&acts, limit).await?;
        for event in page.events {
            let is_found = metadata(&event).get("owner").and_then(|it| it.as_str()) == Some(user);
            if !is_found && is_one(store, &event, user).await? {
                more.push(event);
            }
        }
        if page.complete || more.len() > limit {
            break page.next;
        }
        acts.after = page.next;
    };
    if more.is_empty() {
        return Ok(found);
    }
    found.events.append(&mut more);
    found.events.sort_unstable_by_key(|event| event.position);
    if found.events.len() > limit {
        found.events.truncate(limit);
        found.next = found.events.last().map_or(found.next, |last| last.position);
        found.complete = false;
    } else if found.complete {
        found.next = found.next.min(next);
    }
    Ok(found)
}

/// The search for acts; `None` when nothing that is wanted can be one.
fn acts(wanted: &Search, user: &str) -> Option<Search> {
    let name = format!("user/{user}");
    let is_fit = wanted.actor.as_ref().is_none_or(|actor| *actor == name)
        && wanted.event_type.as_deref().is_none_or(|event_type| event_type == ACT)
        && wanted.type_prefix.as_deref().is_none_or(|prefix| ACT.starts_with(prefix));
    is_fit.then(|| Search {
        actor: Some(name),
        event_type: Some(ACT.to_owned()),
        type_prefix: None,
        seen_by: None,
        ..wanted.clone()
    })
}
