//! The API token aggregate: what a program uses in a user's name; neither token nor hash is in here.
//!
//! ```text
//! absent ──issue──▶ issued ──revoke──▶ revoked
//! ```

use std::str::FromStr;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::value::{UserId, ValueError};

/// What a token may be used for; each is given by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Calls that change nothing.
    Read,
    /// Calls that change something.
    Write,
    /// The rights of an administrator, as long as the user is one.
    Admin,
}

impl Scope {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err(ValueError::new("api_token.scope_invalid", "a scope is read, write or admin")),
        }
    }
}

/// What the owner calls a token: 1 to 100 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenName(String);

impl TokenName {
    /// The name as it was given, without space around it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            let detail = "a token's name has 1 to 100 printable characters";
            Err(ValueError::new("api_token.name_invalid", detail))
        }
    }
}

/// What can be asked of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiTokenCommand {
    /// `expires_at`: µs since 1970.
    Issue {
        user: UserId,
        name: TokenName,
        scopes: Vec<Scope>,
        expires_at: i64,
    },
    Revoke {
        reason: RevokeReason,
    },
}

/// A token's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiTokenEvent {
    Issued { user: UserId, name: String, scopes: Vec<Scope>, expires_at: i64 },
    Revoked { reason: RevokeReason },
}

/// Why a token is good no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// Its owner took it back.
    Owner,
    /// The account was disabled.
    Disabled,
    /// An administrator gave the account a new password.
    PasswordReset,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiTokenError {
    #[error("there is no such token")]
    NotFound,
    #[error("this token id is taken")]
    AlreadyIssued,
}

/// A token as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiToken {
    #[default]
    Absent,
    Issued {
        user: UserId,
    },
    Revoked {
        user: UserId,
        reason: RevokeReason,
    },
}

impl ApiToken {
    /// Judges one command.
    pub fn decide(&self, command: ApiTokenCommand) -> Result<Vec<ApiTokenEvent>, ApiTokenError> {
        match (self, command) {
            (Self::Absent, ApiTokenCommand::Issue { user, name, scopes, expires_at }) => {
                let name = name.as_str().to_owned();
                Ok(vec![ApiTokenEvent::Issued { user, name, scopes, expires_at }])
            }
            (Self::Absent, ApiTokenCommand::Revoke { .. }) => Err(ApiTokenError::NotFound),
            (Self::Issued { .. } | Self::Revoked { .. }, ApiTokenCommand::Issue { .. }) => {
                Err(ApiTokenError::AlreadyIssued)
            }
            (Self::Issued { .. }, ApiTokenCommand::Revoke { reason }) => {
                Ok(vec![ApiTokenEvent::Revoked { reason }])
            }
            (Self::Revoked { .. }, ApiTokenCommand::Revoke { .. }) => Ok(vec![]),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: ApiTokenEvent) -> Self {
        match (self, event) {
            (_, ApiTokenEvent::Issued { user, name: _, scopes: _, expires_at: _ }) => {
                Self::Issued { user }
            }
            (Self::Issued { user }, ApiTokenEvent::Revoked { reason }) => {
                Self::Revoked { user, reason }
            }
            (token, ApiTokenEvent::Revoked { .. }) => token,
        }
    }
}

impl DomainEvent for ApiTokenEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Issued { .. } => "api_token.issued",
            Self::Revoked { .. } => "api_token.revoked",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for ApiToken {
    const TYPE: &'static str = "api_token";
    type Command = ApiTokenCommand;
    type Event = ApiTokenEvent;
    type Error = ApiTokenError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ApiTokenCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ApiTokenError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ApiTokenEvent) {
        *self = std::mem::take(self).evolve(event);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn issue() -> ApiTokenCommand {
        ApiTokenCommand::Issue {
            user: UserId(7),
            name: "deploys of the build".parse().unwrap(),
            scopes: vec![Scope::Read, Scope::Write],
            expires_at: 1_764_547_200_000_000,
        }
    }

    fn folded(events: Vec<ApiTokenEvent>) -> ApiToken {
        events.into_iter().fold(ApiToken::default(), ApiToken::evolve)
    }

    #[test]
    fn a_token_is_issued_once_and_revoked_once() {
        let issued = ApiToken::default().decide(issue()).unwrap();
        let token = folded(issued.clone());
        assert_eq!(token.decide(issue()), Err(ApiTokenError::AlreadyIssued));
        let revoke = || ApiTokenCommand::Revoke { reason: RevokeReason::Owner };
        assert_eq!(ApiToken::default().decide(revoke()), Err(ApiTokenError::NotFound));
        let revoked = token.decide(revoke()).unwrap();
        let token = folded(issued.into_iter().chain(revoked).collect());
        assert_eq!(token.decide(revoke()), Ok(vec![]));
        assert_eq!(token.decide(issue()), Err(ApiTokenError::AlreadyIssued));
    }

    #[test]
    fn a_name_is_short_and_printable_and_a_scope_is_one_of_three() {
        for wrong in ["", "   ", "a\nb", "a\0", &"x".repeat(101)] {
            let error = wrong.parse::<TokenName>().unwrap_err();
            assert_eq!(error.code, "api_token.name_invalid", "{wrong:?}");
        }
        assert_eq!(" build ".parse::<TokenName>().unwrap().as_str(), "build");
        for scope in [Scope::Read, Scope::Write, Scope::Admin] {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!("root".parse::<Scope>().unwrap_err().code, "api_token.scope_invalid");
    }

    #[test]
    fn every_event_of_a_token_is_stored_as_promised() {
        for event in ApiToken::default().decide(issue()).unwrap() {
            crate::fixture::assert_stored_as_promised(&event);
        }
        let revoked = ApiTokenEvent::Revoked { reason: RevokeReason::Owner };
        crate::fixture::assert_stored_as_promised(&revoked);
    }
}
