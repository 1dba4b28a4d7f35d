//! Accounts: signing in, registering, profiles, passwords and what admins may do about users.

mod limits;
mod login;
mod manage;
mod profile;
mod register;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use proximity_domain::user::Role;
use proximity_domain::{UserId, ValueError};
use proximity_eventstore::{Position, Store, tables};

use crate::clock::{Clock, Micros};
use crate::keys::{DerivedKey, MasterKeys, Purpose};
use crate::passwords::Passwords;
use crate::refusals::Refusals;
use crate::rows::{Columns, text, unreadable};
use crate::sessions::{Sessions, Tokens, role};
use crate::{Error, FieldError, Secret};

pub use manage::{ResetPassword, UserChange};
pub use profile::ProfileChange;
pub use register::{NewUser, Registered, Registration};

/// The counter that user ids come from.
const USER_NUMBERS: &str = "last_user_id";

/// Everything about accounts.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    clock: Arc<dyn Clock>,
    passwords: Passwords,
    sessions: Sessions,
    refusals: Arc<Refusals>,
    registration: Registration,
    unknown_names: DerivedKey,
    turns: Arc<limits::Turns>,
}

/// A user as the contract shows one; the password's hash is not among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: UserId,
    pub username: String,
    pub email: Option<String>,
    pub first_name: String,
    pub last_name: String,
    pub role: Role,
    pub disabled: bool,
    /// µs since 1970.
    pub created_at: Micros,
}

/// What login and registration answer.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub user: Profile,
    pub tokens: Tokens,
    /// Up to here the log holds it.
    pub position: Position,
}

/// How a person signs in: by user name or mail address.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub username: Option<String>,
    pub email: Option<String>,
    pub password: Secret,
    /// What the client says it is.
    pub user_agent: Option<String>,
}

impl Accounts {
    /// Accounts in this store.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        keys: &MasterKeys,
        passwords: Passwords,
        sessions: Sessions,
        refusals: Arc<Refusals>,
        registration: Registration,
    ) -> Self {
        let unknown_names = keys.derive(Purpose::UnknownNames);
        let turns = Arc::new(limits::Turns::default());
        Self { store, clock, passwords, sessions, refusals, registration, unknown_names, turns }
    }

    /// One user; `NotFound` when there is none.
    pub async fn profile(&self, user: UserId) -> Result<Profile, Error> {
        profile_of(&self.row(user).await?)
    }

    async fn row(&self, user: UserId) -> Result<Columns, Error> {
        self.find("id", &user.to_string()).await?.ok_or(Error::NotFound)
    }

    async fn find(&self, column: &'static str, value: &str) -> Result<Option<Columns>, Error> {
        let filter = vec![(column, text(value))];
        let rows = self.store.rows(&tables::USERS, filter, 1).await.map_err(unreadable)?;
        Ok(rows.into_iter().next().map(Columns))
    }
}

fn profile_of(row: &Columns) -> Result<Profile, Error> {
    Ok(Profile {
        id: row.parsed("id")?,
        username: row.text("username_shown")?.to_owned(),
        email: row.optional_text("email_shown")?.map(str::to_owned),
        first_name: row.text("first_name")?.to_owned(),
        last_name: row.text("last_name")?.to_owned(),
        role: role(row.text("role")?)?,
        disabled: row.boolean("disabled")?,
        created_at: row.integer("created_at")?,
    })
}

/// Collects what is wrong with the fields of a request, so that all of it is said at once.
#[derive(Default)]
pub(crate) struct Fields(Vec<FieldError>);

impl Fields {
    /// The value, unless it is wrong.
    pub(crate) fn take<T>(&mut self, field: &str, parsed: Result<T, ValueError>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(ValueError { code, message }) => {
                self.0.push(FieldError { field: field.to_owned(), code, detail: message });
                None
            }
        }
    }

    /// Adds what another check has found; other errors pass through.
    pub(crate) fn also<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid(mut errors)) => {
                self.0.append(&mut errors);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that was found.
    pub(crate) fn into_error(self) -> Error {
        Error::Invalid(self.0)
    }
}
