//! Why a command was not carried out: refusals that tell the caller what to do, and failures.

use std::time::Duration;

use proximity_domain::ValueError;
use proximity_eventstore::AppendError;

use crate::ports::HypervisorError;
use crate::redact::without_secrets;

/// The one error of this crate. Codes are stable and dotted; `Display` is a sentence for the caller
/// except for [`Error::Internal`], whose cause belongs in the log only.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No valid identity.
    #[error("sign in first")]
    Unauthenticated,
    /// There is no such thing, or it is someone else's: the caller cannot tell which.
    #[error("there is nothing under this id")]
    NotFound,
    /// The request is understood and wrong as a whole, e.g. `login.failed`.
    #[error("{detail}")]
    Rejected { code: &'static str, detail: String },
    /// The caller may see it, but not do this.
    #[error("{detail}")]
    Forbidden { code: &'static str, detail: String },
    /// The state of things does not allow it, e.g. `hostname.taken`.
    #[error("{detail}")]
    Conflict { code: &'static str, detail: String },
    /// It was to be done only if something is so that is not; nothing was changed.
    #[error("{detail}")]
    Precondition { code: &'static str, detail: String },
    /// Values that do not parse or are out of range, each with its field.
    #[error("{}", first_detail(.0))]
    Invalid(Vec<FieldError>),
    /// The caller asks too often.
    #[error("{detail}")]
    TooMany { code: &'static str, detail: String, retry_after: Duration },
    /// A bounded queue is full, or the store is away; nothing has happened.
    #[error("{detail}")]
    Unavailable { code: &'static str, detail: String, retry_after: Duration },
    /// Proxmox refused or could not be reached on a call that waits for it.
    #[error("{detail}")]
    Upstream {
        code: &'static str,
        /// In words of our own.
        detail: String,
        /// What Proxmox answered, if it did: for the log, and for administrators.
        said: Option<String>,
        /// It did not answer in time.
        timeout: bool,
    },
    /// A defect or a broken environment; the caller learns nothing but the request id.
    #[error("{context}")]
    Internal {
        context: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One value that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name in the contract, e.g. `hostname`.
    pub field: String,
    /// Stable dotted code.
    pub code: &'static str,
    pub detail: String,
}

fn first_detail(errors: &[FieldError]) -> &str {
    errors.first().map_or("a value is not valid", |error| error.detail.as_str())
}

impl Error {
    /// The stable dotted code of the refusal or failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "identity.required",
            Self::NotFound => "not_found",
            Self::Rejected { code, .. }
            | Self::Forbidden { code, .. }
            | Self::Conflict { code, .. }
            | Self::Precondition { code, .. }
            | Self::TooMany { code, .. }
            | Self::Unavailable { code, .. }
            | Self::Upstream { code, .. } => code,
            Self::Invalid(errors) => errors.first().map_or("value.invalid", |error| error.code),
            Self::Internal { .. } => "internal",
        }
    }

    /// A 4xx by state: someone else holds it, or it is not in the right state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict { code, detail: detail.into() }
    }

    /// The caller is known but lacks the right.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Forbidden { code, detail: detail.into() }
    }

    /// One field is wrong.
    pub fn invalid(
        field: impl Into<String>,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self::Invalid(vec![FieldError { field: field.into(), code, detail: detail.into() }])
    }

    /// One field does not parse.
    pub fn value(field: impl Into<String>, error: ValueError) -> Self {
        Self::invalid(field, error.code, error.message)
    }

    /// A failure that the caller cannot mend; `context` says for the log what was being done.
    pub fn internal(
        context: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal { context, source: source.into() }
    }
}

/// How long a caller should wait when a stream kept moving under its command.
const CONTENDED_RETRY: Duration = Duration::from_secs(1);

/// What is left of an append's refusal after its caller has dealt with those that it foresaw.
impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy { retry_after } => Self::Unavailable {
                code: "store.busy",
                detail: "the server is busy; try again shortly".into(),
                retry_after,
            },
            AppendError::Unavailable { retry_after, .. } => {
                tracing::error!(%error, "the event store refused an append");
                Self::Unavailable {
                    code: "store.unavailable",
                    detail: "the event store is not available; nothing was changed".into(),
                    retry_after,
                }
            }
            AppendError::Closed => Self::Unavailable {
                code: "store.closed",
                detail: "the server is shutting down; nothing was changed".into(),
                retry_after: CONTENDED_RETRY,
            },
            AppendError::Conflict { .. }
            | AppendError::AssertionFailed { .. }
            | AppendError::SideStale { .. } => Self::Unavailable {
                code: "store.contended",
                detail: "too many changes to the same thing at once; try again".into(),
                retry_after: CONTENDED_RETRY,
            },
            // Its body is not the one that the key stands for.
            AppendError::KeyReused => Self::invalid(
                "",
                "idempotency_key.reused",
                "this Idempotency-Key was used with another request",
            ),
            AppendError::KeyUsed => Self::conflict(
                "idempotency_key.answer_gone",
                "this request was carried out before; its answer is not kept, or not yet",
            ),
            AppendError::KeyRefused => Self::conflict(
                "idempotency_key.refused_meanwhile",
                "another request with this Idempotency-Key was refused while this one was under way; \
                 this one changed nothing",
            ),
            AppendError::PlanChanged => crate::agreed::changed(),
            AppendError::Overtaken { .. } => Self::Precondition {
                code: "precondition.failed",
                detail: "it has changed since it was read".to_owned(),
            },
            AppendError::DryRun => Self::conflict(
                "dry_run.unsupported",
                "nothing was stored: it was only asked what would be",
            ),
            AppendError::SideConflict { .. }
            | AppendError::Fenced { .. }
            | AppendError::Invalid { .. }
            | AppendError::Unknown => Self::internal("the append was not stored", error),
        }
    }
}

/// For calls that wait for Proxmox; what a reply said is kept apart from what everybody is told.
impl From<HypervisorError> for Error {
    fn from(error: HypervisorError) -> Self {
        let answered = error.answered();
        let (code, timeout) = match &error {
            HypervisorError::Retryable { .. }
            | HypervisorError::Unreachable { .. }
            | HypervisorError::Unknown { .. } => match answered {
                Some(_) => ("proxmox.refused", false),
                None => ("proxmox.unreachable", true),
            },
            HypervisorError::Unauthorized { .. } => ("proxmox.unauthorized", false),
            HypervisorError::Certificate { .. } => ("proxmox.certificate", false),
            HypervisorError::Malformed { .. } => ("proxmox.malformed", false),
            HypervisorError::Permanent { .. }
            | HypervisorError::VmidTaken { .. }
            | HypervisorError::AlreadySo { .. }
            | HypervisorError::Locked { .. }
            | HypervisorError::DigestMismatch { .. }
            | HypervisorError::NoGuest { .. } => ("proxmox.refused", false),
        };
        let (detail, said) = match answered {
            None => (error.to_string(), None),
            Some(call) => {
                let detail = format!("{call}: Proxmox answered with an error");
                (detail, Some(without_secrets(&error.to_string())))
            }
        };
        Self::Upstream { code, detail, said, timeout }
    }
}

/// An error with all its causes, for a log line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
