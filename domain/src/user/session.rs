//! The session aggregate: one login and all tokens that follow from it.
//!
//! ```text
//! absent ──open──▶ open ──refresh──▶ open ──end──▶ ended
//! ```

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::{EndReason, SessionEvent};
use crate::value::UserId;

/// What can be asked of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCommand {
    /// `source` is the address that the login came from.
    Open {
        user: UserId,
        source: String,
    },
    Refresh,
    End {
        reason: EndReason,
    },
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("there is no such session")]
    NotFound,
    #[error("this session id is taken")]
    AlreadyOpened,
    #[error("the session is over")]
    Ended,
}

/// A session as its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Session {
    #[default]
    Absent,
    Open {
        user: UserId,
    },
    Ended {
        user: UserId,
        reason: EndReason,
    },
}

impl Session {
    /// Judges one command.
    pub fn decide(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, SessionError> {
        match (self, command) {
            (Self::Absent, SessionCommand::Open { user, source }) => {
                Ok(vec![SessionEvent::Opened { user, source }])
            }
            (Self::Absent, SessionCommand::Refresh | SessionCommand::End { .. }) => {
                Err(SessionError::NotFound)
            }
            (Self::Open { .. } | Self::Ended { .. }, SessionCommand::Open { .. }) => {
                Err(SessionError::AlreadyOpened)
            }
            (Self::Open { .. }, SessionCommand::Refresh) => Ok(vec![SessionEvent::Refreshed]),
            (Self::Ended { .. }, SessionCommand::Refresh) => Err(SessionError::Ended),
            (Self::Open { .. }, SessionCommand::End { reason }) => {
                Ok(vec![SessionEvent::Ended { reason }])
            }
            (Self::Ended { .. }, SessionCommand::End { .. }) => Ok(vec![]),
        }
    }

    /// Folds one past event.
    pub fn evolve(self, event: SessionEvent) -> Self {
        match (self, event) {
            (_, SessionEvent::Opened { user, source: _ }) => Self::Open { user },
            (Self::Open { user }, SessionEvent::Ended { reason }) => Self::Ended { user, reason },
            (session, SessionEvent::Refreshed | SessionEvent::Ended { .. }) => session,
        }
    }
}

impl Aggregate for Session {
    const TYPE: &'static str = "session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: SessionCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        *self = std::mem::take(self).evolve(event);
    }
}
