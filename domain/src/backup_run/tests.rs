//! The rules of runs, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use uuid::Uuid;

use super::*;
use crate::backup::{Compression, Mode};
use crate::backup_schedule::{Retention, RunResult, Settings};
use crate::fixture::assert_stored_as_promised;
use crate::value::{ScheduleId, UserId};

fn app(number: u32) -> ApplicationId {
    ApplicationId::new("memos", number).unwrap()
}

fn op(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

fn planned() -> Event {
    Event::Planned(Box::new(Planned {
        schedule: ScheduleId(3),
        owner: UserId(7),
        due: 60_000_000,
        settings: Settings {
            cron: "0 2 * * *".parse().unwrap(),
            timezone: "UTC".parse().unwrap(),
            mode: Mode::Snapshot,
            compression: Compression::Zstd,
            keep: Retention { last: 1, ..Retention::default() },
            enabled: true,
        },
        targets: vec![app(1), app(2)],
    }))
}

fn began(number: u32) -> Event {
    let backup = BackupId(i64::from(number));
    Event::Began { application: app(number), backup, operation: op(number.into()) }
}

fn outcome(number: u32, result: RunResult) -> Outcome {
    let (backup, problem) = match result {
        RunResult::Completed => (Some(BackupId(i64::from(number))), None),
        RunResult::Failed | RunResult::Skipped => (None, Some("it was occupied".to_owned())),
    };
    Outcome { application: app(number), result, backup, problem, pruned: vec![] }
}

fn closed(number: u32, result: RunResult) -> Event {
    Event::Closed { outcome: outcome(number, result) }
}

fn close(number: u32, result: RunResult) -> Command {
    Command::Close { outcome: outcome(number, result) }
}

fn begin(number: u32) -> Command {
    let backup = BackupId(i64::from(number));
    Command::Begin { application: app(number), backup, operation: op(number.into()) }
}

fn prune(number: u32, backup: i64) -> Command {
    Command::BeginPruning { application: app(number), backup: BackupId(backup), operation: op(99) }
}

fn pruning(number: u32, backup: i64) -> Event {
    Event::PruningBegan { application: app(number), backup: BackupId(backup), operation: op(99) }
}

fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    past.into_iter().fold(BackupRun::default(), BackupRun::evolve).decide(command)
}

#[test]
fn a_run_without_an_application_is_none() {
    let Event::Planned(mut planned) = planned() else { unreachable!("it is planned") };
    planned.targets.clear();
    assert_eq!(given(vec![], Command::Plan(planned)), Err(Error::NoTarget));
}

#[test]
fn a_run_is_planned_once() {
    let Event::Planned(again) = planned() else { unreachable!("it is planned") };
    assert_eq!(given(vec![], Command::Plan(again.clone())), Ok(vec![planned()]));
    assert_eq!(given(vec![planned()], Command::Plan(again)), Err(Error::AlreadyPlanned));
}

#[test]
fn each_application_is_backed_up_once() {
    assert_eq!(given(vec![planned()], begin(1)), Ok(vec![began(1)]));
    assert_eq!(given(vec![planned(), began(1)], begin(1)), Err(Error::NotNext));
    assert_eq!(given(vec![planned(), began(1)], begin(2)), Ok(vec![began(2)]));
    assert_eq!(given(vec![planned()], begin(3)), Err(Error::NotATarget));
    let past = vec![planned(), closed(1, RunResult::Skipped)];
    assert_eq!(given(past, begin(1)), Err(Error::NotNext));
}

#[test]
fn how_long_an_occupied_application_is_tried_does_not_move() {
    let defer = |until| Command::Defer { application: app(1), reason: "busy".to_owned(), until };
    let deferred = Event::Deferred { application: app(1), reason: "busy".to_owned(), until: 50 };
    assert_eq!(given(vec![planned()], defer(50)), Ok(vec![deferred.clone()]));
    assert_eq!(given(vec![planned(), deferred.clone()], defer(90)), Ok(vec![]));
    // Once its backup is made, the removals have a time of their own.
    let past = vec![planned(), deferred, began(1)];
    assert_eq!(given(past, defer(90)).unwrap().len(), 1);
}

#[test]
fn older_backups_are_removed_only_after_a_new_one_was_begun_and_each_once() {
    assert_eq!(given(vec![planned()], prune(1, 40)), Err(Error::NotNext));
    let past = vec![planned(), began(1)];
    assert_eq!(given(past.clone(), prune(1, 40)), Ok(vec![pruning(1, 40)]));
    let past = [past, vec![pruning(1, 40)]].concat();
    assert_eq!(given(past.clone(), prune(1, 40)), Err(Error::AlreadyAsked));
    assert_eq!(given(past.clone(), prune(1, 41)), Ok(vec![pruning(1, 41)]));
    let past = [past, vec![closed(1, RunResult::Completed)]].concat();
    assert_eq!(given(past, prune(1, 41)), Err(Error::NotNext));
}

#[test]
fn the_backup_that_the_run_made_is_never_removed_by_it() {
    assert_eq!(given(vec![planned(), began(1)], prune(1, 1)), Err(Error::NotNext));
    assert_eq!(given(vec![planned(), began(1), pruning(1, 40)], prune(1, 1)), Err(Error::NotNext));
}

#[test]
fn a_run_ends_when_every_application_is_closed() {
    let past = vec![planned(), began(1), closed(1, RunResult::Completed)];
    assert_eq!(given(past.clone(), Command::End), Err(Error::NotOver));
    assert_eq!(given(past.clone(), close(1, RunResult::Failed)), Err(Error::NotNext));
    let past = [past, vec![closed(2, RunResult::Skipped)]].concat();
    let run = past.clone().into_iter().fold(BackupRun::default(), BackupRun::evolve);
    let outcomes = [outcome(1, RunResult::Completed), outcome(2, RunResult::Skipped)];
    assert_eq!(run.open().unwrap().outcomes(), outcomes);
    assert_eq!(given(past.clone(), Command::End), Ok(vec![Event::Ended]));
    let past = [past, vec![Event::Ended]].concat();
    assert_eq!(given(past.clone(), Command::End), Err(Error::Ended));
    assert_eq!(given(past, begin(2)), Err(Error::Ended));
}

#[test]
fn a_runs_id_is_read_as_it_is_written() {
    let id = RunId { schedule: ScheduleId(3), due: 1_764_000_000_000_000 };
    assert_eq!(id.to_string(), "3.1764000000000000");
    assert_eq!(id.to_string().parse(), Ok(id));
    for wrong in ["", "3", "3.", ".5", "0.5", "a.b", "3.5.7"] {
        assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
    }
}

#[test]
fn stored_runs_can_be_read_for_ever() {
    for event in [
        planned(),
        Event::Deferred { application: app(1), reason: "it was occupied".to_owned(), until: 90 },
        began(1),
        pruning(1, 40),
        closed(2, RunResult::Skipped),
        Event::Ended,
    ] {
        assert_stored_as_promised(&event);
    }
}
