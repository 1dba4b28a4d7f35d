//! Why an application refuses what is asked of it.

use crate::plan::Kind;
use crate::value::OperationId;

/// Why it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such application")]
    NotFound,
    #[error("this application exists already")]
    AlreadyExists,
    #[error("another operation on this application is running: {operation}")]
    Busy { operation: OperationId },
    #[error(
        "the operation {operation} ({}) is stuck and keeps this application reserved: an administrator \
         has to resume it or give it up", .kind.as_str()
    )]
    Stuck { operation: OperationId, kind: Kind },
    #[error("this application failed to deploy; it can only be deleted")]
    OnlyDeletable,
    #[error("this application is not running")]
    NotRunning,
    #[error("this application's container is gone: restore a backup of it, or delete it")]
    Lost,
    #[error("this operation is not the one that runs on the application")]
    NotThisOperation,
}
