//! The user aggregate: an account's life, without any hash or secret.
//!
//! ```text
//! unregistered ──register──▶ enabled ◀──enable── disabled
//!                               └──────disable─────▲
//! ```

mod api_token;
mod event;
mod name;
mod session;
#[cfg(test)]
mod tests;

pub use api_token::{
    ApiToken, ApiTokenCommand, ApiTokenError, ApiTokenEvent, RevokeReason, Scope, TokenName,
};
pub use event::*;
pub use name::{EmailAddress, PersonalName, Username};
pub use session::{Session, SessionCommand, SessionError};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use crate::value::SessionId;

/// What can be asked of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Register { username: Username, email: Option<EmailAddress>, role: Role, via: Via },
    ChangeProfile { first_name: PersonalName, last_name: PersonalName, email: Option<EmailAddress> },
    ChangePassword,
    ChangeRole { role: Role },
    Disable,
    Enable,
    LogIn { session: SessionId },
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such user")]
    NotFound,
    #[error("this user id is taken")]
    AlreadyRegistered,
    #[error("this account is disabled")]
    Disabled,
}

/// An account as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    #[default]
    Unregistered,
    Registered(Account),
}

/// A registered account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub username: String,
    pub email: Option<String>,
    pub first_name: String,
    pub last_name: String,
    pub role: Role,
    pub disabled: bool,
}

impl User {
    /// Judges one command.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (self, command) {
            (Self::Unregistered, Command::Register { username, email, role, via }) => {
                let email = email.map(String::from);
                Ok(vec![Event::Registered { username: username.into(), email, role, via }])
            }
            (Self::Registered(_), Command::Register { .. }) => Err(Error::AlreadyRegistered),
            (Self::Unregistered, _) => Err(Error::NotFound),
            (
                Self::Registered(account),
                Command::ChangeProfile { first_name, last_name, email },
            ) => {
                let (first_name, last_name) = (String::from(first_name), String::from(last_name));
                let email = email.map(String::from);
                let same = account.first_name == first_name
                    && account.last_name == last_name
                    && account.email == email;
                Ok(unless(same, Event::ProfileChanged { first_name, last_name, email }))
            }
            (Self::Registered(account), Command::ChangeRole { role }) => {
                Ok(unless(account.role == role, Event::RoleChanged { role }))
            }
            (Self::Registered(account), Command::Disable) => {
                Ok(unless(account.disabled, Event::Disabled))
            }
            (Self::Registered(account), Command::Enable) => {
                Ok(unless(!account.disabled, Event::Enabled))
            }
            (Self::Registered(account), Command::LogIn { .. }) if account.disabled => {
                Err(Error::Disabled)
            }
            (Self::Registered(_), Command::LogIn { session }) => {
                Ok(vec![Event::LoggedIn { session }])
            }
            (Self::Registered(_), Command::ChangePassword) => Ok(vec![Event::PasswordChanged]),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Registered { username, email, role, via: _ }) => Self::Registered(Account {
                username,
                email,
                first_name: String::new(),
                last_name: String::new(),
                role,
                disabled: false,
            }),
            (Self::Unregistered, _) => Self::Unregistered,
            (Self::Registered(account), event) => Self::Registered(match event {
                Event::ProfileChanged { first_name, last_name, email } => {
                    Account { first_name, last_name, email, ..account }
                }
                Event::RoleChanged { role } => Account { role, ..account },
                Event::Disabled => Account { disabled: true, ..account },
                Event::Enabled => Account { disabled: false, ..account },
                Event::PasswordChanged | Event::LoggedIn { .. } | Event::Registered { .. } => {
                    account
                }
            }),
        }
    }

    /// The account, once there is one.
    pub fn account(&self) -> Option<&Account> {
        match self {
            Self::Unregistered => None,
            Self::Registered(account) => Some(account),
        }
    }
}

/// "Already so" is no event.
fn unless(already: bool, event: Event) -> Vec<Event> {
    if already { Vec::new() } else { vec![event] }
}

impl Aggregate for User {
    const TYPE: &'static str = "user";
    type Command = Command;
    type Event = Event;
    type Error = Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Error> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        *self = std::mem::take(self).evolve(event);
    }
}
