//! What has happened to a user and to a login session; no hash and no secret is ever in here.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use crate::value::{SessionId, UserId};

/// A user's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Registered { username: String, email: Option<String>, role: Role, via: Via },
    ProfileChanged { first_name: String, last_name: String, email: Option<String> },
    PasswordChanged,
    RoleChanged { role: Role },
    Disabled,
    Enabled,
    LoggedIn { session: SessionId },
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Admin,
}

/// How an account came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    SetupToken,
    CommandLine,
    Registration,
    Admin,
}

/// A session's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEvent {
    Opened { user: UserId, source: String },
    Refreshed,
    Ended { reason: EndReason },
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    Logout,
    /// A refresh token was presented twice: it has leaked.
    RefreshReused,
    PasswordChanged,
    Disabled,
    RevokedByAdmin,
    /// Its user ended it from another session.
    EndedByUser,
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Registered { .. } => "user.registered",
            Self::ProfileChanged { .. } => "user.profile_changed",
            Self::PasswordChanged => "user.password_changed",
            Self::RoleChanged { .. } => "user.role_changed",
            Self::Disabled => "user.disabled",
            Self::Enabled => "user.enabled",
            Self::LoggedIn { .. } => "user.logged_in",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl DomainEvent for SessionEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Opened { .. } => "session.opened",
            Self::Refreshed => "session.refreshed",
            Self::Ended { .. } => "session.ended",
        }
        .to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}
