//! Who may do what: proofs that only this module makes, each with one keyed look-up.
//!
//! Commands take proofs, not ids, so a handler that forgets to ask does not compile. Ownership is
//! read from the rows that the append itself wrote, never from a projection.

mod concerned;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::str::FromStr;

use proximity_domain::user::Role;
use proximity_domain::{ApplicationId, BackupId, OperationId, ScheduleId, UserId};
use proximity_eventstore::{Guard, SideWrite, Store, tables};

pub use concerned::Concerned;

use crate::Error;
use crate::actor::{Actor, Identity};
use crate::rows::{Columns, text, unreadable};

/// A kind of thing that has an owner.
pub trait Ownable: Clone + Display + FromStr {
    /// The column `kind` of its ownership row.
    const KIND: &'static str;
}

impl Ownable for ApplicationId {
    const KIND: &'static str = "application";
}

impl Ownable for BackupId {
    const KIND: &'static str = "backup";
}

impl Ownable for ScheduleId {
    const KIND: &'static str = "backup_schedule";
}

impl Ownable for OperationId {
    const KIND: &'static str = "operation";
}

/// The actor may see and change this thing: it is the actor's own, or the actor is an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned<T> {
    id: T,
    owner: UserId,
    actor: Actor,
}

impl<T: Ownable> Owned<T> {
    /// Looks id and owner up together. What is someone else's is not found, as what never was.
    pub async fn prove(store: &Store, actor: &Actor, id: T) -> Result<Self, Error> {
        let mut filter = vec![("kind", text(T::KIND)), ("id", text(&id))];
        match &actor.identity {
            Identity::System(_) | Identity::User { role: Role::Admin, .. } => {}
            Identity::User { id: user, role: Role::User, .. } => {
                filter.push(("owner", text(user)));
            }
            Identity::Schedule { owner, .. } => filter.push(("owner", text(owner))),
            Identity::Anonymous => return Err(Error::Unauthenticated),
        }
        let rows = store.rows(&tables::OWNERSHIP, filter, 1).await.map_err(unreadable)?;
        let row = Columns(rows.into_iter().next().ok_or(Error::NotFound)?);
        Ok(Self { id, owner: row.parsed("owner")?, actor: actor.clone() })
    }

    /// The same for an id as it stands in a path: one that does not parse was never issued.
    pub async fn prove_text(store: &Store, actor: &Actor, id: &str) -> Result<Self, Error> {
        if actor.identity == Identity::Anonymous {
            return Err(Error::Unauthenticated);
        }
        let id = id.parse().map_err(|_| Error::NotFound)?;
        Self::prove(store, actor, id).await
    }
}

impl<T> Owned<T> {
    /// The thing.
    pub fn id(&self) -> &T {
        &self.id
    }

    /// Whose it is; an admin acts on behalf of this user.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// Who asked.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

/// The actor is an administrator, or the operator's own shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    actor: Actor,
}

impl Admin {
    /// The role is the one that authentication read for this very request.
    pub fn prove(actor: &Actor) -> Result<Self, Error> {
        match &actor.identity {
            Identity::System(_) | Identity::User { role: Role::Admin, .. } => {
                Ok(Self { actor: actor.clone() })
            }
            Identity::User { role: Role::User, .. } | Identity::Schedule { .. } => {
                Err(Error::forbidden("admin.required", "only an administrator may do this"))
            }
            Identity::Anonymous => Err(Error::Unauthenticated),
        }
    }

    /// Who asked.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

/// The row that makes something a user's own: written with its first event.
pub fn give<T: Ownable>(id: &T, owner: UserId) -> SideWrite {
    SideWrite::Insert {
        table: &tables::OWNERSHIP,
        row: vec![("kind", text(T::KIND)), ("id", text(id)), ("owner", text(owner))],
    }
}

/// Takes the row away: from then on nobody finds the thing.
pub fn take_away<T: Ownable>(id: &T) -> SideWrite {
    SideWrite::Delete {
        table: &tables::OWNERSHIP,
        filter: vec![("kind", text(T::KIND)), ("id", text(id))],
        guard: Guard::None,
    }
}
