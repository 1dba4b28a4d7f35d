//! What has happened to a user and to a login session; no hash and no secret is ever in here.

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
}
