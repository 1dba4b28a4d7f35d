//! What a step is, and how it can fail.

use async_trait::async_trait;
use proximity_domain::operation::{Direction, Failure, FailureClass, Finding};

use super::place::Place;
use super::work::Work;
use crate::dispatch::AppendFaults;
use crate::error::Error;
use crate::ports::HypervisorError;
use crate::redact::without_secrets;

/// One step of a saga. Both ways are `ensure …`: running either twice, or after a try whose outcome
/// nobody knows, does no harm.
#[async_trait]
pub trait Step: Send + Sync {
    /// Stored in events; never renamed.
    fn name(&self) -> &'static str;
    /// From the intent of a pivot on the operation only goes forward.
    fn is_pivot(&self) -> bool {
        false
    }
    /// The container that it makes, if it makes one.
    async fn makes(&self, _work: &Work<'_>) -> Result<Option<Place>, StepError> {
        Ok(None)
    }
    /// Brings the step's effect about.
    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError>;
    /// Takes it back; also runs when `act` failed, since a lost reply looks like a failure.
    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError>;
}

/// Why a step did not end well.
#[derive(Debug)]
pub enum StepError {
    /// It failed; the class says what follows.
    Failed(Failure),
    /// A stranger has the planned VMID.
    VmidTaken,
    /// The runner has to let go of the operation at once and record nothing.
    LetGo(&'static str),
    /// The store could not be asked.
    Store(Error),
}

impl StepError {
    pub(super) fn retryable(message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Retryable, &message.into())
    }

    pub(super) fn permanent(message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Permanent, &message.into())
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Unknown, &message.into())
    }

    /// Every failure is made here, since its message becomes part of events: what Proxmox has put
    /// into it may hold a secret.
    fn failed(class: FailureClass, message: &str) -> Self {
        Self::Failed(Failure { class, message: without_secrets(message) })
    }
}

/// Bounded tries decide how long anything but a clear refusal is hoped for.
impl From<HypervisorError> for StepError {
    fn from(error: HypervisorError) -> Self {
        let message = error.to_string();
        match error {
            HypervisorError::Permanent { .. } => Self::permanent(message),
            HypervisorError::Unknown { .. } => Self::unknown(message),
            HypervisorError::VmidTaken { .. } => Self::VmidTaken,
            HypervisorError::Retryable { .. }
            | HypervisorError::Unreachable { .. }
            | HypervisorError::Malformed { .. }
            | HypervisorError::Unauthorized { .. }
            | HypervisorError::Certificate { .. }
            | HypervisorError::AlreadySo { .. }
            | HypervisorError::Locked { .. }
            | HypervisorError::DigestMismatch { .. }
            | HypervisorError::NoGuest { .. } => Self::retryable(message),
        }
    }
}

/// The moments around a step at which a test can let the runner die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    BeforeIntent,
    AfterIntent,
    /// After the effect and before its outcome is stored.
    AfterEffect,
    AfterOutcome,
}

/// Lets a test end the runner's work on an operation at a chosen moment, as a crash would, or leave
/// a try or an undo out.
pub trait Hooks: AppendFaults {
    /// `true` ends the work right here, with nothing recorded and the claim kept.
    fn dies(&self, point: Point, step: &str, direction: Direction) -> bool;
    /// `true` makes this try fail before it does anything: for steps that ask nobody.
    fn fails(&self, _step: &str, _direction: Direction) -> bool {
        false
    }
    /// `true` takes the step for undone without undoing it: a planted defect.
    fn skips_undo(&self, _step: &str) -> bool {
        false
    }
    /// `true` gives up at the first failure: a planted defect.
    fn never_retries(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_holds_what_looks_like_a_secret() {
        let said = "the container does not run: hook --password=hunter2 failed";
        let call = "POST /nodes/{node}/lxc";
        let refused = HypervisorError::Permanent { call, reason: said.into() };
        for error in [
            StepError::retryable(said),
            StepError::permanent(said),
            StepError::unknown(said),
            refused.into(),
        ] {
            let told = format!("{error:?}");
            assert!(told.contains("--password=[redacted] failed"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
