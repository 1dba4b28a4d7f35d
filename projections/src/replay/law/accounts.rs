//! What can happen to accounts, to login sessions and to API tokens.

use proximity_domain::UserId;
use proximity_domain::user::{
    ApiToken, ApiTokenCommand, ApiTokenEvent, Command, Event, Session, SessionCommand,
    SessionEvent, User,
};
use proximity_domain::value::ValueError;

use super::Law;

impl Law for User {
    fn command(event: &Event) -> Result<Command, String> {
        Ok(match event.clone() {
            Event::Registered { username, email, role, via } => Command::Register {
                username: username.parse().map_err(detail)?,
                email: email.map(|email| email.parse()).transpose().map_err(detail)?,
                role,
                via,
            },
            Event::ProfileChanged { first_name, last_name, email } => Command::ChangeProfile {
                first_name: first_name.parse().map_err(detail)?,
                last_name: last_name.parse().map_err(detail)?,
                email: email.map(|email| email.parse()).transpose().map_err(detail)?,
            },
            Event::PasswordChanged => Command::ChangePassword,
            Event::RoleChanged { role } => Command::ChangeRole { role },
            Event::Disabled => Command::Disable,
            Event::Enabled => Command::Enable,
            Event::LoggedIn { session } => Command::LogIn { session },
        })
    }

    fn again(&self, command: Command) -> Result<Vec<Event>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.account().is_some()
    }
}

impl Law for Session {
    fn command(event: &SessionEvent) -> Result<SessionCommand, String> {
        Ok(match event.clone() {
            SessionEvent::Opened { user, source } => SessionCommand::Open { user, source },
            SessionEvent::Refreshed => SessionCommand::Refresh,
            SessionEvent::Ended { reason } => SessionCommand::End { reason },
        })
    }

    fn again(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

impl Law for ApiToken {
    fn command(event: &ApiTokenEvent) -> Result<ApiTokenCommand, String> {
        Ok(match event.clone() {
            ApiTokenEvent::Issued { user, name, scopes, expires_at } => ApiTokenCommand::Issue {
                user,
                name: name.parse().map_err(detail)?,
                scopes,
                expires_at,
            },
            ApiTokenEvent::Revoked { reason } => ApiTokenCommand::Revoke { reason },
        })
    }

    fn again(&self, command: ApiTokenCommand) -> Result<Vec<ApiTokenEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        matches!(self, Self::Issued { .. })
    }

    fn owner(&self, event: &ApiTokenEvent) -> Option<UserId> {
        match event {
            ApiTokenEvent::Issued { user, .. } => Some(*user),
            ApiTokenEvent::Revoked { .. } => None,
        }
    }
}

fn detail(error: ValueError) -> String {
    error.message
}
