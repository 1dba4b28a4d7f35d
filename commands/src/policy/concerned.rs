//! Who may look at an operation and take it back: whose it is, and whose application it has reserved.

use proximity_domain::operation::Event;
use proximity_domain::plan::Plan;
use proximity_domain::{ApplicationId, OperationId};
use proximity_eventstore::{Search, Store};

use super::Owned;
use crate::Error;
use crate::actor::Actor;
use crate::rows::unreadable;

/// The actor may see an operation and take it back: it is the actor's own, or it copies an application of
/// the actor's for somebody else, and nothing else can be done to that one until it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concerned {
    id: OperationId,
    actor: Actor,
    whole: bool,
}

impl Concerned {
    /// For an id as it stands in a path. To anybody else there is no such operation.
    pub async fn prove_text(store: &Store, actor: &Actor, id: &str) -> Result<Self, Error> {
        match Owned::<OperationId>::prove_text(store, actor, id).await {
            Ok(owned) => Ok(owned.into()),
            Err(Error::NotFound) => {
                let id = id.parse().map_err(|_| Error::NotFound)?;
                let source = copied(store, id).await?.ok_or(Error::NotFound)?;
                Owned::prove(store, actor, source).await?;
                Ok(Self { id, actor: actor.clone(), whole: false })
            }
            Err(error) => Err(error),
        }
    }

    /// The operation.
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Who asked.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether all of it is the actor's to see; of somebody else's copy it is no more than its id.
    pub fn sees_all(&self) -> bool {
        self.whole
    }
}

impl From<Owned<OperationId>> for Concerned {
    fn from(owned: Owned<OperationId>) -> Self {
        Self { id: owned.id, actor: owned.actor, whole: true }
    }
}

/// The application that an operation copies, as it was planned.
async fn copied(store: &Store, id: OperationId) -> Result<Option<ApplicationId>, Error> {
    let stream = Some(("operation".to_owned(), id.to_string()));
    let found = store.search(&Search { stream, ..Search::default() }, 1).await;
    let Some(first) = found.map_err(unreadable)?.events.into_iter().next() else { return Ok(None) };
    Ok(match serde_json::from_str(&first.payload) {
        Ok(Event::Planned { plan: Plan::Clone(plan), .. }) => Some(plan.source),
        _ => None,
    })
}
