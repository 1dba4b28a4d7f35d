//! Which command an event answers: what was stored has to be what the aggregate, as it stood then,
//! would decide.

mod accounts;
mod backups;
mod site;

use std::collections::HashMap;
use std::hash::Hash;

use cqrs_es::Aggregate;
use proximity_domain::UserId;
use proximity_domain::application::{
    Application, Command as AppCommand, Event as AppEvent, Sighting,
};
use proximity_domain::lease::{Command as LeaseCommand, Event as LeaseEvent};
use proximity_domain::operation::{Command as OpCommand, Event as OpEvent, Operation};
use proximity_eventstore::Recorded;

pub(super) use site::of_log;

use super::judge::read;
use super::said::Said;

/// A kind of stream whose events are decided again.
pub(super) trait Law: Aggregate {
    /// What an event is that could not have been decided.
    const WRONG: &'static str = "could not happen then";

    /// The command that an event answers, or why there is none.
    fn command(event: &Self::Event) -> Result<Self::Command, String>;

    /// What the command leads to now.
    fn again(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Whether anything can still happen to it: the state of what has ended is not kept.
    fn lives(&self) -> bool;

    /// Whether the event belongs in the stream with this id.
    fn belongs(_event: &Self::Event, _id: &str) -> bool {
        true
    }

    /// Whose thing it is about, where everything that is written says so beside it.
    fn owner(&self, _event: &Self::Event) -> Option<UserId> {
        None
    }
}

/// Decides an event again and folds it; an error says what is wrong with it.
pub(super) fn judge<A: Law, K: Hash + Eq>(
    states: &mut HashMap<K, A>,
    key: K,
    event: &Recorded,
    beside: &Said<'_>,
) -> Result<(), String> {
    let said: A::Event = read(event)?;
    let state = states.remove(&key);
    // Only what lives is kept: a stream that goes on without a state has ended.
    let has_ended = state.is_none() && event.sequence > 1;
    let state = state.unwrap_or_default();
    let verdict = if has_ended {
        Err(format!("{} {}: its stream has ended", event.event_type, A::WRONG))
    } else {
        decided(&state, &said, event)
    };
    let owner = state.owner(&said);
    let mut state = state;
    state.apply(said);
    if state.lives() {
        states.insert(key, state);
    }
    verdict?;
    owner.map_or(Ok(()), |owner| beside.is_of(owner))
}

fn decided<A: Law>(state: &A, said: &A::Event, event: &Recorded) -> Result<(), String> {
    let name = &event.event_type;
    if !A::belongs(said, &event.aggregate_id) {
        return Err(format!("{name} does not belong in this stream"));
    }
    let command = A::command(said).map_err(|why| format!("{name} {}: {why}", A::WRONG))?;
    match state.again(command) {
        Ok(decided) if decided.as_slice() == std::slice::from_ref(said) => Ok(()),
        Ok(decided) if decided.is_empty() => Err(format!("{name} {}: it was so already", A::WRONG)),
        Ok(decided) => Err(format!("{name} {}; that would be {decided:?}", A::WRONG)),
        Err(why) => Err(format!("{name} {}: {why}", A::WRONG)),
    }
}

impl Law for Operation {
    const WRONG: &'static str = "is no legal next step";

    fn command(event: &OpEvent) -> Result<OpCommand, String> {
        Ok(of_operation(event))
    }

    fn again(&self, command: OpCommand) -> Result<Vec<OpEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.progress().is_some()
    }

    fn owner(&self, event: &OpEvent) -> Option<UserId> {
        match event {
            OpEvent::Planned { owner, .. } => Some(*owner),
            _ => self.progress().map(|progress| progress.owner),
        }
    }
}

impl Law for Application {
    fn command(event: &AppEvent) -> Result<AppCommand, String> {
        Ok(of_application(event))
    }

    fn again(&self, command: AppCommand) -> Result<Vec<AppEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        !matches!(self, Self::Absent | Self::Removed)
    }

    fn owner(&self, event: &AppEvent) -> Option<UserId> {
        match event {
            AppEvent::Requested(requested) => Some(requested.owner),
            // What a clone noted at its source once named the clone's owner.
            _ => None,
        }
    }
}

/// How far the clocks of a server and of its database may differ, in µs: the one says until when a lease
/// is kept, and the other when it was cleared.
const CLOCKS: i64 = 300_000_000;

/// The command that a lease's event answers, which was stored at that moment (µs since 1970).
pub fn of_lease(event: &LeaseEvent, recorded_at: i64) -> LeaseCommand {
    match event.clone() {
        LeaseEvent::Acquired { holder } => LeaseCommand::Acquire { holder },
        LeaseEvent::Released { holder } => LeaseCommand::Release { holder },
        LeaseEvent::Quarantined { holder, until, reason } => {
            LeaseCommand::Quarantine { holder, until, reason }
        }
        // When it was looked is not stored; it was before that.
        LeaseEvent::Cleared => LeaseCommand::Clear { now: recorded_at.saturating_add(CLOCKS) },
        LeaseEvent::FoundForeign { reason } => LeaseCommand::FindForeign { reason },
    }
}

/// The command that an operation's event answers.
fn of_operation(event: &OpEvent) -> OpCommand {
    match event.clone() {
        OpEvent::Planned { application, owner, plan, steps, deadline } => {
            OpCommand::Plan { application, owner, plan: Box::new(plan), steps, deadline }
        }
        OpEvent::StepIntended { step, direction, attempt: _, stood, site } => {
            OpCommand::IntendStep { step, direction, stood, site }
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
fn of_application(event: &AppEvent) -> AppCommand {
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
        // What it was recorded to do may have been doubted.
        AppEvent::OperationBegan { operation, kind } => AppCommand::BeginUnseen { operation, kind },
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
        AppEvent::OperationAbandoned { operation, problem, running } => {
            AppCommand::Abandon { operation, problem, running }
        }
        AppEvent::Observed { node, running, address } => {
            AppCommand::Observe(Sighting::Present { node, running, address })
        }
        AppEvent::Lost(loss) => AppCommand::Observe(Sighting::Missing(loss)),
        AppEvent::Protected { operation } => AppCommand::NoteProtected { operation },
        AppEvent::Removed { operation } => AppCommand::FinishRemoval { operation },
    }
}
