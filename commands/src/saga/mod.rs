//! Operations carried out: each saga is a list of steps with `act` and `undo`, run by one engine.

mod adopt;
mod archive;
mod archived;
mod backup;
mod calls;
mod clone;
mod config;
mod create;
mod delete;
mod drive;
mod finish;
mod guest;
mod health;
mod instructions;
mod left;
mod orphans;
mod place;
mod power;
mod process;
mod proof;
mod quarantine;
mod quorum;
mod restore;
mod runner;
mod step;
pub mod task_log;
mod tasks;
pub(crate) mod traces;
mod undo_calls;
pub(crate) mod unlisted;
mod work;

use proximity_domain::operation::Progress;
use proximity_domain::plan::{CloneWay, Plan, RestorePlan, RestoreWay, Source};

pub use calls::{Planned, calls};
pub use config::SagaConfig;
pub use place::Place;
pub(crate) use proof::{file_name, is_disk_of};
pub use runner::{Runner, RunnerHandle};
pub use step::{Hooks, Point, Step, StepError};
pub use undo_calls::undo_calls;
pub use work::Env;

/// The steps of a plan, in order.
pub fn steps(plan: &Plan) -> &'static [&'static dyn Step] {
    match plan {
        Plan::Deploy(plan) => match plan.source {
            Source::Template { .. } => &[
                &archive::EnsureTemplate,
                &create::CreateContainer,
                &power::Start,
                &health::WaitHealthy,
            ],
            Source::Oci { .. } => &[
                &archive::EnsureOciImage,
                &create::CreateContainer,
                &power::Start,
                &health::WaitHealthy,
            ],
        },
        Plan::Delete(plan) if plan.guest.is_none() || plan.replaced => &[],
        Plan::Delete(plan) if plan.adopted_by.is_some() => &[&adopt::UnmarkContainer],
        Plan::Delete(_) => &[&delete::StopGuest, &delete::Unprotect, &delete::Destroy],
        Plan::Start(_) => &[&power::Start, &health::WaitHealthy],
        Plan::Stop(_) => &[&power::Stop],
        Plan::Backup(_) => &[&backup::CreateBackup],
        Plan::BackupDelete(plan) if plan.nothing => &[],
        Plan::BackupDelete(_) => &[&backup::CheckBackup, &backup::DeleteBackup],
        Plan::Restart(_) => &[&power::StopFirst, &power::StartAgain, &health::WaitHealthy],
        Plan::Clone(plan) => match plan.way {
            CloneWay::Stopped => &[&clone::CloneContainer, &clone::ConfigureClone],
            CloneWay::Snapshot { .. } => &[
                &clone::SnapshotSource,
                &clone::CloneContainer,
                &clone::RemoveSnapshot,
                &clone::ConfigureClone,
                &power::Start,
                &health::WaitHealthy,
            ],
            CloneWay::Downtime => &[
                &clone::StopSource,
                &clone::CloneContainer,
                &clone::StartSource,
                &clone::ConfigureClone,
                &power::Start,
                &health::WaitHealthy,
            ],
        },
        Plan::Adopt(_) => &[&adopt::MarkContainer],
        Plan::Restore(plan) => restoring(plan),
    }
}

/// A restored container is started also when its application was stopped: nothing is given up for it
/// before it was seen healthy.
fn restoring(plan: &RestorePlan) -> &'static [&'static dyn Step] {
    match (plan.way, plan.lost, plan.was_running) {
        (RestoreWay::Swap, None, true) => &[
            &restore::RestoreContainer,
            &restore::StopOriginal,
            &power::Start,
            &health::WaitHealthy,
            &restore::Swap,
            &restore::DestroyOriginal,
        ],
        (RestoreWay::Swap, None, false) => &[
            &restore::RestoreContainer,
            &restore::StopOriginal,
            &power::Start,
            &health::WaitHealthy,
            &restore::StopRestored,
            &restore::Swap,
            &restore::DestroyOriginal,
        ],
        (RestoreWay::Swap, Some(_), _) => {
            &[&restore::RestoreContainer, &power::Start, &health::WaitHealthy, &restore::Swap]
        }
        (RestoreWay::InPlace, _, true) => &[
            &restore::CheckArchive,
            &restore::StopOriginal,
            &restore::UnprotectOriginal,
            &restore::Overwrite,
            &power::Start,
            &health::WaitHealthy,
        ],
        (RestoreWay::InPlace, _, false) => &[
            &restore::CheckArchive,
            &restore::StopOriginal,
            &restore::UnprotectOriginal,
            &restore::Overwrite,
        ],
    }
}

/// The names of a plan's steps, in order, as they are stored with it.
pub fn step_names(plan: &Plan) -> Vec<String> {
    steps(plan).iter().map(|step| step.name().to_owned()).collect()
}

/// Whether a step was begun from which on the operation only goes forward.
pub fn is_past_pivot(progress: &Progress) -> bool {
    progress.begun.iter().filter_map(|name| step(&progress.plan, name)).any(|step| step.is_pivot())
}

/// Whether an operation that goes no further has left its application's container stopped, which ran
/// before. Of a restore into a new one that is the old one, until they are swapped.
pub fn has_stopped_its_own(progress: &Progress) -> bool {
    match &progress.plan {
        Plan::Restart(_) => is_between(progress, "stop", "start"),
        Plan::Restore(plan) => match plan.way {
            RestoreWay::InPlace => is_between(progress, "stop_original", "start"),
            RestoreWay::Swap => is_between(progress, "stop_original", "swap"),
        },
        _ => false,
    }
}

/// The same of the container that a copy is made of.
pub fn has_stopped_the_source(progress: &Progress) -> bool {
    is_between(progress, "stop_source", "start_source")
}

/// Whether the one step has succeeded and was not taken back since, and the other was not begun.
fn is_between(progress: &Progress, done: &str, not_begun: &str) -> bool {
    let has_begun = |step: &str| progress.begun.iter().any(|begun| begun == step);
    let is_done = progress.steps.iter().take(progress.succeeded).any(|step| step == done);
    is_done && has_begun(done) && !has_begun(not_begun)
}

/// A step by the name that is stored.
fn step(plan: &Plan, name: &str) -> Option<&'static dyn Step> {
    steps(plan).iter().copied().find(|step| step.name() == name)
}
