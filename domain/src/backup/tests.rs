//! The rules of backups, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::plan::GuestRef;
use crate::value::{HostId, ScheduleId, UserId};
use uuid::Uuid;

fn op(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

fn requested() -> Event {
    Event::Requested(Box::new(Requested {
        application: "memos-0a1b2c3d".parse().unwrap(),
        owner: UserId(7),
        operation: op(1),
        guest: GuestRef {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: "104".parse().unwrap(),
        },
        storage: "local".into(),
        mode: Mode::Snapshot,
        compression: Compression::Zstd,
        scheduled: None,
    }))
}

fn archive() -> Archive {
    Archive {
        volume: "local:backup/vzdump-lxc-104-2026_11_23-20_24_34.tar.zst".into(),
        size: Some(1_088_387),
        mode: Mode::Suspend,
    }
}

fn completed() -> Event {
    Event::Completed { operation: op(1), archive: archive() }
}

fn failed() -> Event {
    Event::Failed { operation: op(1), problem: "no space left".into(), absent: true }
}

fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    past.into_iter().fold(Backup::default(), Backup::evolve).decide(command)
}

fn begin(number: u128, kind: Kind) -> Command {
    Command::Begin { operation: op(number), kind }
}

#[test]
fn a_backup_that_is_being_made_cannot_be_deleted() {
    let refused = given(vec![requested()], begin(2, Kind::BackupDelete));
    assert_eq!(refused, Err(Error::Busy { operation: op(1) }));
}

#[test]
fn a_completed_backup_can_be_deleted_and_is_then_not_found() {
    let began = Event::OperationBegan { operation: op(2), kind: Kind::BackupDelete };
    let past = vec![requested(), completed()];
    assert_eq!(given(past.clone(), begin(2, Kind::BackupDelete)), Ok(vec![began.clone()]));
    let past = [past, vec![began, Event::Deleted { operation: op(2) }]].concat();
    assert_eq!(given(past, begin(3, Kind::BackupDelete)), Err(Error::NotFound));
}

#[test]
fn audit_16_of_two_operations_on_a_backup_the_second_is_refused() {
    let began = Event::OperationBegan { operation: op(2), kind: Kind::BackupDelete };
    let past = vec![requested(), completed(), began];
    assert_eq!(
        given(past.clone(), begin(3, Kind::BackupDelete)),
        Err(Error::Busy { operation: op(2) })
    );
    assert_eq!(given(past, begin(2, Kind::BackupDelete)), Ok(vec![]));
}

#[test]
fn a_failed_backup_can_only_be_deleted() {
    let past = vec![requested(), failed()];
    assert_eq!(given(past.clone(), begin(2, Kind::Backup)), Err(Error::OnlyDeletable));
    assert_eq!(given(past, begin(2, Kind::BackupDelete)).unwrap().len(), 1);
}

#[test]
fn only_the_operation_that_works_on_it_says_how_it_ended() {
    let wrong = Command::Complete { operation: op(9), archive: archive() };
    assert_eq!(given(vec![requested()], wrong), Err(Error::NotThisOperation));
    let late = Command::Fail { operation: op(1), problem: "late".to_owned(), absent: true };
    assert_eq!(given(vec![requested(), completed()], late), Err(Error::NotThisOperation));
}

#[test]
fn a_deletion_that_failed_leaves_the_backup_as_it_was() {
    let began = Event::OperationBegan { operation: op(2), kind: Kind::BackupDelete };
    let ended = Event::OperationEnded { operation: op(2), problem: Some("it is protected".into()) };
    let past = vec![requested(), completed(), began, ended];
    let backup = past.into_iter().fold(Backup::default(), Backup::evolve);
    let kept = backup.kept().unwrap();
    assert_eq!((&kept.outcome, kept.current), (&Outcome::Completed(archive()), None));
}

#[test]
fn a_backup_says_which_schedule_asked_for_it() {
    let Event::Requested(mut requested) = requested() else { unreachable!("it is asked for") };
    let written = serde_json::to_value(&requested).unwrap();
    assert_eq!(written.get("scheduled"), None, "a person's backup is written as it always was");
    requested.scheduled = Some(Scheduled { schedule: ScheduleId(3), due: 60, at: 61 });
    let event = Event::Requested(requested);
    let text = serde_json::to_string(&event).unwrap();
    assert!(text.contains(r#""scheduled":{"schedule":3,"due":60,"at":61}"#), "{text}");
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
}

#[test]
fn stored_backups_can_be_read_for_ever() {
    for event in [
        requested(),
        completed(),
        failed(),
        Event::OperationBegan { operation: op(2), kind: Kind::BackupDelete },
        Event::OperationEnded { operation: op(2), problem: Some("it is protected".into()) },
        Event::Deleted { operation: op(2) },
    ] {
        assert_stored_as_promised(&event);
    }
}
