//! The last append of an operation, and the one that replaces a VMID: all streams or none.

use proximity_domain::application::{Application, Command as App, Loss};
use proximity_domain::backup::{Backup as BackupState, Command as Backup};
use proximity_domain::lease::{Command as LeaseCommand, Error as LeaseError, Holder, Lease};
use proximity_domain::operation::{
    Command as Op, Direction, Failure, Finding, Operation, Progress,
};
use proximity_domain::plan::{GuestRef, Holdings, Plan, RestoreWay};
use proximity_domain::{ApplicationId, BackupId, LeaseKey, Vmid};
use rand::Rng as _;

use super::instructions::instructions;
use super::step::StepError;
use super::work::{Env, Hold, follows, metadata};
use crate::clock::Micros;
use crate::dispatch::{Refused, Retries, Unit, load};
use crate::error::Error;
use crate::host_usage;
use crate::ports::Hypervisor;
use crate::secrets::Secrets;

/// How far from the old number a new one is looked for.
const NEIGHBOURHOOD: u32 = 10_000;
/// How many numbers are tried before the step counts as failed.
const PICKS: u32 = 40;

/// Why the number of a container that is gone is not looked after any more.
const ANOTHERS: &str = "another guest has it";

/// One decision of an append.
#[derive(Clone)]
enum Decision {
    Lease(LeaseKey, LeaseCommand),
    /// Left out when the application is gone and only what it left is worked on.
    Application(App),
    /// For another application that the operation is about.
    Other(ApplicationId, App),
    Backup(BackupId, Backup),
    Operation(Op),
}

/// All steps have succeeded.
pub(super) async fn complete(env: &Env, hold: &Hold, progress: &Progress) -> Result<(), StepError> {
    let operation = hold.operation;
    let address = progress.findings.values().find_map(|finding| match finding {
        Finding::Address(address) => Some(*address),
        Finding::Archive { .. } | Finding::Backup(_) => None,
    });
    let mut decisions = Vec::new();
    let ending = match &progress.plan {
        Plan::Deploy(_) => App::CompleteDeployment { operation, address },
        Plan::Start(_) => App::FinishStart { operation, address },
        Plan::Stop(_) => App::FinishStop { operation },
        Plan::Restart(_) => App::FinishRestart { operation, address },
        Plan::Delete(plan) => {
            let stays = plan.adopted_by.is_some();
            let (guest, holdings) = (plan.guest.as_ref(), plan.holdings.as_ref());
            if let Some(guest) = guest.filter(|_| plan.replaced) {
                let foreign = LeaseCommand::FindForeign { reason: ANOTHERS.to_owned() };
                decisions.push(Decision::Lease(guest.vmid_lease(), foreign));
            }
            give_back(env, &mut decisions, progress, guest, holdings, stays);
            App::FinishRemoval { operation }
        }
        Plan::Clone(plan) => {
            let (into, running) = (progress.application.clone(), plan.was_running());
            let cloned = App::NoteCloned { operation, into, running };
            decisions.push(Decision::Other(plan.source.clone(), cloned));
            App::FinishClone { operation, address, running }
        }
        Plan::Adopt(plan) => App::FinishAdoption { operation, address, running: plan.was_running },
        Plan::Backup(plan) => {
            let Some(archive) = super::backup::found(progress) else {
                return Err(StepError::permanent("no archive was found"));
            };
            let completed = Backup::Complete { operation, archive };
            decisions.push(Decision::Backup(plan.backup, completed));
            App::EndOperation { operation, running: plan.was_running }
        }
        Plan::BackupDelete(plan) => {
            decisions.push(Decision::Backup(plan.backup, Backup::FinishDeletion { operation }));
            App::EndOperation { operation, running: plan.was_running }
        }
        Plan::Restore(plan) => {
            let (backup, running) = (plan.backup, plan.was_running);
            decisions.push(Decision::Backup(backup, Backup::End { operation, problem: None }));
            if plan.way == RestoreWay::Swap {
                let lease = if plan.lost == Some(Loss::Replaced) {
                    LeaseCommand::FindForeign { reason: ANOTHERS.to_owned() }
                } else {
                    quarantined(env, progress)
                };
                decisions.push(Decision::Lease(plan.original.vmid_lease(), lease));
            }
            App::FinishRestore { operation, backup, address, running }
        }
    };
    decisions.push(Decision::Application(ending));
    decisions.push(Decision::Operation(Op::Complete));
    store(env, hold, progress, "operation.complete", &decisions).await
}

/// Everything is taken back. `running`: what the container was found doing, if there is one.
pub(super) async fn undone(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    reason: &str,
    running: bool,
) -> Result<(), StepError> {
    let (operation, problem) = (hold.operation, reason.to_owned());
    let mut decisions = Vec::new();
    let ending = match &progress.plan {
        Plan::Deploy(plan) => {
            let (guest, holdings) = (Some(&plan.guest), Some(&plan.holdings));
            give_back(env, &mut decisions, progress, guest, holdings, false);
            App::FailDeployment { operation, problem }
        }
        Plan::Clone(plan) => {
            let (guest, holdings) = (Some(&plan.guest), Some(&plan.holdings));
            give_back(env, &mut decisions, progress, guest, holdings, false);
            let failed = App::FailOperation { operation, problem: problem.clone(), running };
            decisions.push(Decision::Other(plan.source.clone(), failed));
            App::FailDeployment { operation, problem }
        }
        Plan::Adopt(plan) => {
            let (guest, holdings) = (Some(&plan.guest), Some(&plan.holdings));
            give_back(env, &mut decisions, progress, guest, holdings, true);
            App::FailDeployment { operation, problem }
        }
        Plan::Backup(plan) => {
            let failed = Backup::Fail { operation, problem: problem.clone(), absent: true };
            decisions.push(Decision::Backup(plan.backup, failed));
            App::FailOperation { operation, problem, running }
        }
        Plan::BackupDelete(plan) => {
            let ended = Backup::End { operation, problem: Some(problem.clone()) };
            decisions.push(Decision::Backup(plan.backup, ended));
            App::FailOperation { operation, problem, running }
        }
        Plan::Restore(plan) => {
            let ended = Backup::End { operation, problem: Some(problem.clone()) };
            decisions.push(Decision::Backup(plan.backup, ended));
            if plan.way == RestoreWay::Swap {
                let lease = quarantined(env, progress);
                decisions.push(Decision::Lease(plan.guest.vmid_lease(), lease));
            }
            App::FailOperation { operation, problem, running }
        }
        Plan::Start(_) | Plan::Stop(_) | Plan::Restart(_) | Plan::Delete(_) => {
            App::FailOperation { operation, problem, running }
        }
    };
    decisions.push(Decision::Application(ending));
    decisions.push(Decision::Operation(Op::FinishUndo));
    store(env, hold, progress, "operation.undone", &decisions).await
}

/// Nothing more can be done without an operator; the leases stay.
pub(super) async fn stuck(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    step: &str,
    direction: Direction,
    failure: &Failure,
) -> Result<(), StepError> {
    let reason = failure.message.clone();
    let instructions = instructions(progress, step, &reason);
    let problem = format!("{step}: {reason}");
    let mark = App::MarkStuck { operation: hold.operation, problem };
    let mut decisions = vec![
        Decision::Application(mark),
        Decision::Operation(Op::GetStuck {
            step: step.to_owned(),
            direction,
            reason,
            instructions,
        }),
    ];
    if let Plan::Clone(plan) = &progress.plan {
        // It may be somebody else's, who is to know of the copy no more than its id.
        let (operation, copy) = (hold.operation, &progress.application);
        let problem = format!(
            "the operation {operation}, which copies it into {copy}, is stuck: an administrator has to \
             resume it or give it up"
        );
        let mark = App::MarkStuck { operation, problem };
        decisions.push(Decision::Other(plan.source.clone(), mark));
    }
    store(env, hold, progress, "operation.stuck", &decisions).await
}

/// The restored container becomes the application's. Repeated, it changes nothing.
pub(super) async fn swap(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    to: GuestRef,
) -> Result<(), StepError> {
    let swap = App::SwapGuest { operation: hold.operation, to };
    store(env, hold, progress, "operation.swap", &[Decision::Application(swap)]).await
}

/// A stranger has the number: another one is leased, the old one marked, the plan changed.
pub(super) async fn replace_vmid(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    hypervisor: &dyn Hypervisor,
) -> Result<(), StepError> {
    let (guest, agreed) = match &progress.plan {
        Plan::Deploy(plan) => (&plan.guest, plan.agreed),
        Plan::Clone(plan) => (&plan.guest, plan.agreed),
        Plan::Restore(plan) if plan.way == RestoreWay::Swap => (&plan.guest, plan.agreed),
        _ => return Err(StepError::permanent("this operation cannot take another number")),
    };
    if agreed {
        return Err(StepError::permanent(format!(
            "a guest that is not ours has number {}, and the plan that was agreed on names no other",
            guest.vmid
        )));
    }
    let (low, high) = env.config.vmids;
    let old = guest.vmid;
    let first = old.get().saturating_sub(NEIGHBOURHOOD / 2).max(low);
    let last = first.saturating_add(NEIGHBOURHOOD).min(high).max(first);
    for _ in 0..PICKS {
        let number = rand::rng().random_range(first..=last);
        let Ok(to) = Vmid::try_from(i64::from(number)) else { continue };
        if to == old || !hypervisor.vmid_is_free(to).await? {
            continue;
        }
        let mut changed = progress.plan.clone();
        match &mut changed {
            Plan::Deploy(plan) => plan.guest.vmid = to,
            Plan::Clone(plan) => plan.guest.vmid = to,
            Plan::Restore(plan) => plan.guest.vmid = to,
            _ => {}
        }
        let new = GuestRef { vmid: to, ..guest.clone() };
        // Someone else may hold it: that is only found out by asking, and costs one more pick.
        let key = new.vmid_lease().to_string();
        let (lease, _) = load::<Lease>(&env.store, &key).await.map_err(StepError::Store)?;
        let holder = Holder::Application(progress.application.clone());
        if lease.decide(LeaseCommand::Acquire { holder: holder.clone() }).is_err() {
            continue;
        }
        let reason = format!("a guest that is not ours has number {old}");
        let mut decisions = vec![
            Decision::Lease(new.vmid_lease(), LeaseCommand::Acquire { holder }),
            Decision::Lease(
                guest.vmid_lease(),
                LeaseCommand::FindForeign { reason: reason.clone() },
            ),
            Decision::Operation(Op::ChangePlan { plan: Box::new(changed), reason }),
        ];
        // Until it is swapped, an application that is restored has its old one.
        if !matches!(progress.plan, Plan::Restore(_)) {
            let replace = App::ReplaceVmid { operation: hold.operation, to };
            decisions.push(Decision::Application(replace));
        }
        return store(env, hold, progress, "operation.replace_vmid", &decisions).await;
    }
    Err(StepError::retryable("no other number could be leased"))
}

/// All leases of an application, the VMID through quarantine, unless its container `stays` there,
/// which nobody has to look for.
fn give_back(
    env: &Env,
    decisions: &mut Vec<Decision>,
    progress: &Progress,
    guest: Option<&GuestRef>,
    holdings: Option<&Holdings>,
    stays: bool,
) {
    let holder = Holder::Application(progress.application.clone());
    let Some(guest) = guest else { return };
    for key in holdings.map(|holdings| holdings.leases(&guest.cluster)).unwrap_or_default() {
        decisions.push(Decision::Lease(key, LeaseCommand::Release { holder: holder.clone() }));
    }
    if stays {
        decisions.push(Decision::Lease(guest.vmid_lease(), LeaseCommand::Release { holder }));
        return;
    }
    decisions.push(Decision::Lease(guest.vmid_lease(), quarantined(env, progress)));
}

/// A number that the application gives back, kept until it is known to be free.
fn quarantined(env: &Env, progress: &Progress) -> LeaseCommand {
    let quarantine = Micros::try_from(env.config.quarantine.as_micros()).unwrap_or(Micros::MAX);
    LeaseCommand::Quarantine {
        holder: Holder::Application(progress.application.clone()),
        until: env.clock.now().saturating_add(quarantine),
        reason: format!("it was {}'s", progress.application),
    }
}

async fn decide(
    unit: &mut Unit<'_>,
    hold: &Hold,
    progress: &Progress,
    decision: Decision,
) -> Result<(), Error> {
    match decision {
        Decision::Lease(key, command) => {
            match unit.apply::<Lease>(&key.to_string(), command).await {
                // Leases of an abandoned operation may have gone another way; not ours to give back.
                Ok(_) | Err(Refused::Judged(LeaseError::NotHolder)) => Ok(()),
                Err(refused) => {
                    Err(refused.or_else(|error| Error::internal("a lease refused its end", error)))
                }
            }
        }
        Decision::Application(_) if progress.plan.is_detached() => Ok(()),
        Decision::Backup(id, command) => {
            let judged = unit.apply::<BackupState>(&id.to_string(), command).await;
            judged.map(drop).map_err(|refused| {
                let context = "the backup refused an outcome";
                refused.or_else(|error| Error::internal(context, error))
            })
        }
        Decision::Application(command) => tell(unit, progress.application.as_str(), command).await,
        Decision::Other(application, command) => tell(unit, application.as_str(), command).await,
        Decision::Operation(command) => {
            let id = hold.operation.to_string();
            unit.apply::<Operation>(&id, command).await.map(drop).map_err(|refused| {
                let context = "the operation refused an outcome";
                refused.or_else(|error| Error::internal(context, error))
            })
        }
    }
}

async fn tell(unit: &mut Unit<'_>, application: &str, command: App) -> Result<(), Error> {
    unit.apply::<Application>(application, command).await.map(drop).map_err(|refused| {
        let context = "the application refused an outcome";
        refused.or_else(|error| Error::internal(context, error))
    })
}

/// Whether these decisions are the last ones of an application that held something.
fn ends_holding(decisions: &[Decision]) -> bool {
    decisions.iter().any(|decision| {
        matches!(
            decision,
            Decision::Application(App::FailDeployment { .. } | App::FinishRemoval { .. })
        )
    })
}

async fn store(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    name: &'static str,
    decisions: &[Decision],
) -> Result<(), StepError> {
    let mut retries = Retries::default();
    loop {
        let meta = metadata(progress, hold, name);
        let mut unit = env.outcome(meta, Some(hold.fence()));
        for decision in decisions {
            decide(&mut unit, hold, progress, decision.clone()).await.map_err(StepError::Store)?;
        }
        let id = hold.operation.to_string();
        // Also where the operation itself decides nothing: it is known what this follows from.
        unit.load::<Operation>(&id).await.map_err(StepError::Store)?;
        follows(&mut unit, &id);
        if ends_holding(decisions) {
            // From here on the host may be removed.
            unit.write(host_usage::let_go(&progress.application));
            unit.write(Secrets::forget_all(&progress.application));
        }
        if matches!(decisions.last(), Some(Decision::Operation(Op::Complete | Op::FinishUndo))) {
            host_usage::end(&mut unit, hold.operation, &progress.plan);
        }
        match unit.commit().await {
            Ok(_) => return Ok(()),
            Err(error) => retries.again(error.into()).await.map_err(StepError::Store)?,
        }
    }
}
