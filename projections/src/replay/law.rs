//! Which command an event answers: what was stored has to be what the aggregate, as it stood then,
//! would decide.

use proximity_domain::application::{Command as AppCommand, Event as AppEvent, Sighting};
use proximity_domain::lease::{Command as LeaseCommand, Event as LeaseEvent};
use proximity_domain::operation::{Command as OpCommand, Event as OpEvent};

/// The command that a lease's event answers.
pub fn of_lease(event: &LeaseEvent) -> LeaseCommand {
    match event.clone() {
        LeaseEvent::Acquired { holder } => LeaseCommand::Acquire { holder },
        LeaseEvent::Released { holder } => LeaseCommand::Release { holder },
        LeaseEvent::Quarantined { holder, until, reason } => {
            LeaseCommand::Quarantine { holder, until, reason }
        }
        // When it was looked is not stored; that the time was over is all that matters.
        LeaseEvent::Cleared => LeaseCommand::Clear { now: i64::MAX },
        LeaseEvent::FoundForeign { reason } => LeaseCommand::FindForeign { reason },
    }
}

/// The command that an operation's event answers.
pub fn of_operation(event: &OpEvent) -> OpCommand {
    match event.clone() {
        OpEvent::Planned { application, owner, plan, steps, deadline } => {
            OpCommand::Plan { application, owner, plan: Box::new(plan), steps, deadline }
        }
        OpEvent::StepIntended { step, direction, attempt: _ } => {
            OpCommand::IntendStep { step, direction }
        }
        OpEvent::TaskStarted { step, direction, upid } => {
            OpCommand::NoteTask { step, direction, upid }
        }
        OpEvent::StepSucceeded { step, direction, attempt: _, found } => {
            OpCommand::SucceedStep { step, direction, found }
        }
        OpEvent::StepFailed { step, direction, attempt: _, failure, retry_at } => {
            OpCommand::FailStep { step, direction, failure, retry_at }
        }
        OpEvent::PlanChanged { plan, reason } => {
            OpCommand::ChangePlan { plan: Box::new(plan), reason }
        }
        OpEvent::CancelRequested { by, reason } => OpCommand::Cancel { by, reason },
        OpEvent::UnwindingBegan { reason } => OpCommand::Unwind { reason, past_pivot: false },
        OpEvent::Completed => OpCommand::Complete,
        OpEvent::Undone { reason: _ } => OpCommand::FinishUndo,
        OpEvent::Stuck { step, direction, reason, instructions } => {
            OpCommand::GetStuck { step, direction, reason, instructions }
        }
        OpEvent::Resumed { by, note } => OpCommand::Resume { by, note },
        OpEvent::Abandoned { by, note } => OpCommand::Abandon { by, note },
    }
}

/// The command that an application's event answers.
pub fn of_application(event: &AppEvent) -> AppCommand {
    match event.clone() {
        AppEvent::Requested(requested) => AppCommand::Request(requested),
        AppEvent::Deployed { operation, address } => {
            AppCommand::CompleteDeployment { operation, address }
        }
        AppEvent::DeploymentFailed { operation, problem } => {
            AppCommand::FailDeployment { operation, problem }
        }
        AppEvent::CloneReady { operation, address, running } => {
            AppCommand::FinishClone { operation, address, running }
        }
        AppEvent::Adopted { operation, address, running } => {
            AppCommand::FinishAdoption { operation, address, running }
        }
        AppEvent::Cloned { operation, into, running } => {
            AppCommand::NoteCloned { operation, into, running }
        }
        AppEvent::VmidReplaced { operation, from: _, to } => {
            AppCommand::ReplaceVmid { operation, to }
        }
        AppEvent::OperationBegan { operation, kind } => {
            AppCommand::BeginOperation { operation, kind }
        }
        AppEvent::Started { operation, address } => AppCommand::FinishStart { operation, address },
        AppEvent::Stopped { operation } => AppCommand::FinishStop { operation },
        AppEvent::Restarted { operation, address } => {
            AppCommand::FinishRestart { operation, address }
        }
        AppEvent::GuestSwapped { operation, from: _, to } => {
            AppCommand::SwapGuest { operation, to }
        }
        AppEvent::Restored { operation, backup, address, running } => {
            AppCommand::FinishRestore { operation, backup, address, running }
        }
        AppEvent::OperationFailed { operation, kind: _, problem, running } => {
            AppCommand::FailOperation { operation, problem, running }
        }
        AppEvent::OperationEnded { operation, kind: _, running } => {
            AppCommand::EndOperation { operation, running }
        }
        AppEvent::OperationStuck { operation, problem } => {
            AppCommand::MarkStuck { operation, problem }
        }
        AppEvent::OperationAbandoned { operation, problem } => {
            AppCommand::Abandon { operation, problem }
        }
        AppEvent::Observed { node, running, address } => {
            AppCommand::Observe(Sighting::Present { node, running, address })
        }
        AppEvent::Lost(loss) => AppCommand::Observe(Sighting::Missing(loss)),
        AppEvent::Removed { operation } => AppCommand::FinishRemoval { operation },
    }
}
