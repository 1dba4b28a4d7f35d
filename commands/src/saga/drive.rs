//! One operation driven to its end: load, next move, record, act. First run and recovery are the same.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proximity_domain::operation::{
    Command, Direction, Failure, FailureClass, Move, Operation, Phase, Progress, Site, Volumes,
};
use proximity_domain::plan::Plan;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::finish;
use super::guest::Found;
use super::instructions::unlocking;
use super::quorum;
use super::step::{Point, Step, StepError};
use super::work::{Env, Hold, Work, ran, record, record_with};
use crate::clock::{Micros, SECOND};
use crate::dispatch::load;
use crate::ports::Upid;

/// How often a runner that cannot reach the store tries before it leaves the operation to a sweep.
const STORE_TRIES: u32 = 5;

/// What became of one drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driven {
    /// It has ended, or waits for an operator.
    Rests,
    /// Someone goes on with it later: this process or another one.
    Left,
    /// A test ended the work as a crash would.
    Died,
}

/// Goes on with an operation until it rests or has to be left.
pub(super) async fn drive(env: &Env, hold: Hold, stopping: &CancellationToken) -> Driven {
    let mut failures = 0;
    let driven = loop {
        match advance(env, &hold, stopping).await {
            Ok(true) => failures = 0,
            Ok(false) => break Driven::Rests,
            Err(StepError::LetGo(DIED)) => return Driven::Died,
            Err(StepError::LetGo(why)) => {
                tracing::info!(operation = %hold.operation, why, "an operation is left for now");
                break Driven::Left;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(operation = %hold.operation, ?error, "an operation cannot go on");
                if failures > STORE_TRIES || stopping.is_cancelled() {
                    break Driven::Left;
                }
                tokio::time::sleep(env.config.pause(failures)).await;
            }
        }
    };
    hold.release(env).await;
    driven
}

const DIED: &str = "a test ended the work";

/// Makes one move. `false`: there is none to make.
async fn advance(env: &Env, hold: &Hold, stopping: &CancellationToken) -> Result<bool, StepError> {
    let id = hold.operation.to_string();
    let (operation, _) = load::<Operation>(&env.store, &id).await.map_err(StepError::Store)?;
    let Some(progress) = operation.progress() else { return Ok(false) };
    let next = progress.next_move();
    if matches!(next, Move::Try { .. } | Move::Recover { .. }) {
        rest(env, hold, progress, stopping).await?;
    }
    if let Some(reason) = turn_back(env, progress, &next) {
        let command = Command::Unwind { reason, past_pivot: false };
        record(env, hold, progress, "operation.unwind", command).await?;
        return Ok(true);
    }
    let begins = matches!(&next, Move::Try { direction: Direction::Act, .. });
    if begins
        && progress.begun.is_empty()
        && let Some(reason) = quorum::missing(env, hold, progress, stopping).await?
    {
        let command = Command::Unwind { reason, past_pivot: false };
        record(env, hold, progress, "operation.unwind", command).await?;
        return Ok(true);
    }
    match next {
        Move::AwaitOperator => return Ok(false),
        Move::Complete => finish::complete(env, hold, progress).await?,
        Move::FinishUndo => {
            let reason = match &progress.phase {
                Phase::Unwinding { reason } => reason.clone(),
                Phase::Forward | Phase::Stuck { .. } => String::new(),
            };
            let running = is_running(env, hold, progress, stopping).await;
            finish::undone(env, hold, progress, &reason, running).await?;
        }
        Move::GiveUp { step, direction, failure } => {
            if direction == Direction::Undo || super::is_past_pivot(progress) {
                finish::stuck(env, hold, progress, &step, direction, &failure).await?;
            } else {
                let rest = unlocking(progress, &step, &failure.message).unwrap_or_default();
                let reason = format!("{step}: {}{rest}", failure.message);
                let command = Command::Unwind { reason, past_pivot: false };
                record(env, hold, progress, "operation.unwind", command).await?;
            }
        }
        Move::Try { step, direction, number } => {
            let attempt =
                Attempt { name: step, direction, number, recovering: number > 1, task: None };
            try_step(env, hold, progress, stopping, attempt).await?;
        }
        Move::Recover { step, direction, number, upid } => {
            let task = upid.map(Upid);
            let attempt = Attempt { name: step, direction, number, recovering: true, task };
            try_step(env, hold, progress, stopping, attempt).await?;
        }
    }
    Ok(true)
}

/// Why a forward operation should be taken back although its next move is another: it was cancelled
/// or its time is over. Never past a pivot.
fn turn_back(env: &Env, progress: &Progress, next: &Move) -> Option<String> {
    let forward = progress.phase == Phase::Forward && *next != Move::Complete;
    if !forward || super::is_past_pivot(progress) {
        return None;
    }
    if let Some(reason) = &progress.cancel {
        return Some(format!("cancelled: {reason}"));
    }
    (env.clock.now() > progress.deadline).then(|| {
        let attempt = progress.attempt.as_ref();
        let failed = attempt.and_then(|last| Some((&last.step, last.failure.as_ref()?)));
        match failed {
            Some((step, failure)) => {
                let rest = unlocking(progress, step, &failure.message).unwrap_or_default();
                format!("its time is over; {step}: {}{rest}", failure.message)
            }
            None => "its time is over".to_owned(),
        }
    })
}

struct Attempt {
    name: String,
    direction: Direction,
    number: u32,
    recovering: bool,
    task: Option<Upid>,
}

/// Intent, effect, outcome.
async fn try_step(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    stopping: &CancellationToken,
    attempt: Attempt,
) -> Result<(), StepError> {
    let Attempt { name, direction, number, recovering, task } = attempt;
    let Some(step) = super::step(&progress.plan, &name) else {
        let failure = Failure {
            class: FailureClass::Permanent,
            message: format!("this program knows no step `{name}`"),
        };
        return finish::stuck(env, hold, progress, &name, direction, &failure).await;
    };
    dies(env, Point::BeforeIntent, &name, direction)?;
    let work = env.hypervisors.of(host(progress)).await.map(|hypervisor| Work {
        env,
        hold,
        progress,
        hypervisor,
        stopping,
        step: step.name(),
        direction,
        recovering,
        task,
        logs: Mutex::default(),
        cancelled: AtomicBool::new(false),
    });
    let looked = match &work {
        Ok(work) => stood(step, work).await,
        Err(_) => Ok(None),
    };
    let (stood, unseen) = match looked {
        Ok(stood) => (stood, None),
        // Without it nothing is made.
        Err(StepError::Failed(failure)) => (None, Some(failure)),
        Err(other) => return Err(other),
    };
    let (stood, site) = stood.unzip();
    let intend = Command::IntendStep { step: name.clone(), direction, stood, site };
    record(env, hold, progress, "operation.intend", intend).await?;
    dies(env, Point::AfterIntent, &name, direction)?;
    let mut logs = Vec::new();
    let done = match (work, unseen) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Some(failure)) => Err(StepError::Failed(failure)),
        (Ok(work), None) => {
            let done = perform(step, &work).await;
            logs = work.logs.into_inner();
            done
        }
    };
    dies(env, Point::AfterEffect, &name, direction)?;
    match done {
        Ok(found) => {
            let succeed = Command::SucceedStep { step: name.clone(), direction, found };
            record_with(env, hold, progress, "operation.succeed", succeed, &logs).await?;
        }
        Err(StepError::Failed(failure)) => {
            let retry_at = next_try(env, progress, direction, number, &failure);
            tracing::info!(
                operation = %hold.operation, step = name, ?direction, number, again = retry_at.is_some(),
                "{}", failure.message
            );
            let fail = Command::FailStep { step: name.clone(), direction, failure, retry_at };
            record_with(env, hold, progress, "operation.fail", fail, &logs).await?;
        }
        Err(StepError::VmidTaken) => {
            let hypervisor = env.hypervisors.of(host(progress)).await?;
            match finish::replace_vmid(env, hold, progress, hypervisor.as_ref()).await {
                Err(StepError::Failed(failure)) => {
                    let retry_at = next_try(env, progress, direction, number, &failure);
                    let fail =
                        Command::FailStep { step: name.clone(), direction, failure, retry_at };
                    record(env, hold, progress, "operation.fail", fail).await?;
                }
                other => other?,
            }
        }
        Err(other) => return Err(other),
    }
    dies(env, Point::AfterOutcome, &name, direction)
}

/// What stands under the number of a container that is to be made, looked at once.
async fn stood(step: &dyn Step, work: &Work<'_>) -> Result<Option<(Volumes, Site)>, StepError> {
    if work.direction == Direction::Undo || work.progress.stood.is_some() {
        return Ok(None);
    }
    match step.makes(work).await? {
        None => Ok(None),
        Some(place) => place.stood(work).await.map(Some),
    }
}

async fn perform(
    step: &dyn Step,
    work: &Work<'_>,
) -> Result<Option<proximity_domain::operation::Finding>, StepError> {
    let hooks = work.env.hooks.as_deref();
    if hooks.is_some_and(|hooks| hooks.fails(work.step, work.direction)) {
        return Err(StepError::retryable("a test let it fail"));
    }
    match work.direction {
        Direction::Act => step.act(work).await,
        Direction::Undo => {
            if hooks.is_some_and(|hooks| hooks.skips_undo(work.step)) {
                return Ok(None);
            }
            step.undo(work).await.map(|()| None)
        }
    }
}

/// µs since 1970 of the next try; `None` when there is none.
fn next_try(
    env: &Env,
    progress: &Progress,
    direction: Direction,
    number: u32,
    failure: &Failure,
) -> Option<Micros> {
    let config = &env.config;
    // A try that would come too late is not waited for in full: the deadline ends the operation then,
    // except past a pivot, where there is no way back.
    let (most, latest) = match direction {
        Direction::Act if super::is_past_pivot(progress) => (config.act_attempts, Micros::MAX),
        Direction::Act => (config.act_attempts, progress.deadline.saturating_add(1)),
        Direction::Undo => (config.undo_attempts, Micros::MAX),
    };
    let hopeless = failure.class == FailureClass::Permanent
        || number >= most
        || env.hooks.as_ref().is_some_and(|hooks| hooks.never_retries());
    let pause = Micros::try_from(config.pause(number).as_micros()).unwrap_or(SECOND);
    (!hopeless).then(|| env.clock.now().saturating_add(pause).min(latest))
}

/// Waits for the moment of the next try.
async fn rest(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    stopping: &CancellationToken,
) -> Result<(), StepError> {
    if let Some(at) = progress.not_before() {
        let micros = at.saturating_sub(env.clock.now()).max(0);
        let pause = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(pause.min(env.config.backoff_cap)) => {}
        }
    }
    if stopping.is_cancelled() {
        return Err(StepError::LetGo("the server is stopping"));
    }
    hold.outlive(env, env.config.longest_call).await
}

fn dies(env: &Env, point: Point, step: &str, direction: Direction) -> Result<(), StepError> {
    match &env.hooks {
        Some(hooks) if hooks.dies(point, step, direction) => Err(StepError::LetGo(DIED)),
        _ => Ok(()),
    }
}

fn host(progress: &Progress) -> proximity_domain::HostId {
    progress.plan.guest().map_or(proximity_domain::HostId(0), |guest| guest.host)
}

/// What the container does after a failed operation; as before it, when nobody can tell.
async fn is_running(
    env: &Env,
    hold: &Hold,
    progress: &Progress,
    stopping: &CancellationToken,
) -> bool {
    let before = match &progress.plan {
        Plan::Deploy(_) => false,
        // Also where it was recorded to be so already.
        Plan::Start(_) => ran(env, progress).await.unwrap_or(false),
        Plan::Stop(_) => ran(env, progress).await.unwrap_or(true),
        Plan::Clone(plan) => plan.was_running(),
        Plan::Restore(plan) => plan.was_running && plan.lost.is_none(),
        _ => true,
    };
    // An undone copy leaves nothing of itself: what counts is its source.
    let (application, guest) = match &progress.plan {
        Plan::Clone(plan) => (&plan.source, Some(&plan.source_guest)),
        Plan::Restore(plan) => (&progress.application, Some(&plan.original)),
        plan => (&progress.application, plan.guest()),
    };
    let (Some(guest), Ok(hypervisor)) = (guest, env.hypervisors.of(host(progress)).await) else {
        return before;
    };
    let work = Work {
        env,
        hold,
        progress,
        hypervisor,
        stopping,
        step: "",
        direction: Direction::Undo,
        recovering: false,
        task: None,
        logs: Mutex::default(),
        cancelled: AtomicBool::new(false),
    };
    match work.find_of(application, guest).await {
        Ok(Found::Ours { node, .. }) => work.runs(&node, guest.vmid).await.unwrap_or(before),
        Ok(Found::Nothing | Found::Creating | Found::Foreign) => false,
        Err(_) => before,
    }
}
