//! What can be asked of an application, and what a look at its container tells it.

use std::net::IpAddr;

use super::{Loss, Requested};
use crate::plan::{GuestRef, Kind};
use crate::value::{ApplicationId, BackupId, NodeName, OperationId, Vmid};

/// What can be asked of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Request(Box<Requested>),
    CompleteDeployment {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    FailDeployment {
        operation: OperationId,
        problem: String,
    },
    FinishClone {
        operation: OperationId,
        address: Option<IpAddr>,
        running: bool,
    },
    FinishAdoption {
        operation: OperationId,
        address: Option<IpAddr>,
        running: bool,
    },
    /// Told to the application that was copied.
    NoteCloned {
        operation: OperationId,
        into: ApplicationId,
        running: bool,
    },
    ReplaceVmid {
        operation: OperationId,
        to: Vmid,
    },
    BeginOperation {
        operation: OperationId,
        kind: Kind,
    },
    /// The same also when it is recorded to be so already: whether it is could not be seen.
    BeginUnseen {
        operation: OperationId,
        kind: Kind,
    },
    FinishStart {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    FinishStop {
        operation: OperationId,
    },
    FinishRestart {
        operation: OperationId,
        address: Option<IpAddr>,
    },
    FinishRemoval {
        operation: OperationId,
    },
    /// Another container takes the place of its own.
    SwapGuest {
        operation: OperationId,
        to: GuestRef,
    },
    FinishRestore {
        operation: OperationId,
        backup: BackupId,
        address: Option<IpAddr>,
        running: bool,
    },
    /// An operation that leaves it as it was has ended well.
    EndOperation {
        operation: OperationId,
        running: bool,
    },
    FailOperation {
        operation: OperationId,
        problem: String,
        running: bool,
    },
    MarkStuck {
        operation: OperationId,
        problem: String,
    },
    /// `running`: what it left its container doing, where that is known to be otherwise than recorded.
    Abandon {
        operation: OperationId,
        problem: String,
        running: Option<bool>,
    },
    /// Told by a look at Proxmox; means nothing while an operation runs.
    Observe(Sighting),
    /// Told by a look that saw its container protected, which this operation may have left unprotected.
    NoteProtected {
        operation: OperationId,
    },
}

/// What a look at Proxmox found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// Its container, wherever it is.
    Present { node: NodeName, running: bool, address: Option<IpAddr> },
    /// No container of it.
    Missing(Loss),
}
