//! The rules of schedules, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::backup::{Compression, Mode};
use crate::fixture::assert_stored_as_promised;
use crate::value::{BackupId, UserId};

const MINUTE: i64 = 60_000_000;

fn settings() -> Settings {
    Settings {
        cron: "0 2 * * *".parse().unwrap(),
        timezone: "Europe/Berlin".parse().unwrap(),
        mode: Mode::Snapshot,
        compression: Compression::Zstd,
        keep: Retention { last: 3, daily: 7, weekly: 4, monthly: 6 },
        enabled: true,
    }
}

fn created() -> Event {
    Event::Created(Box::new(Created {
        owner: UserId(7),
        application: Some("memos-0a1b2c3d".parse().unwrap()),
        settings: settings(),
        next: Some(MINUTE),
    }))
}

fn fired() -> Event {
    Event::Fired { due: MINUTE, next: Some(2 * MINUTE) }
}

fn outcomes() -> Vec<Outcome> {
    vec![Outcome {
        application: "memos-0a1b2c3d".parse().unwrap(),
        result: RunResult::Completed,
        backup: Some(BackupId(9)),
        problem: None,
        pruned: vec![BackupId(4)],
    }]
}

fn ended() -> Event {
    Event::RunEnded { due: MINUTE, outcomes: outcomes() }
}

fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    past.into_iter().fold(BackupSchedule::default(), BackupSchedule::evolve).decide(command)
}

fn fire(due: i64) -> Command {
    Command::Fire { due, next: Some(due + MINUTE) }
}

#[test]
fn the_time_that_comes_next_is_fired_once() {
    assert_eq!(given(vec![created()], fire(MINUTE)), Ok(vec![fired()]));
    let again = given(vec![created(), fired(), ended()], fire(MINUTE));
    assert_eq!(again, Err(Error::NotDue));
}

#[test]
fn a_time_that_is_not_the_next_one_is_refused() {
    assert_eq!(given(vec![created()], fire(2 * MINUTE)), Err(Error::NotDue));
    assert_eq!(given(vec![created()], fire(0)), Err(Error::NotDue));
    let backwards = Command::Fire { due: MINUTE, next: Some(MINUTE) };
    assert_eq!(given(vec![created()], backwards), Err(Error::NotDue));
}

#[test]
fn after_the_last_time_of_all_it_does_not_fire_again() {
    let last = Command::Fire { due: MINUTE, next: None };
    let events = given(vec![created()], last).unwrap();
    let past = [vec![created()], events, vec![ended()]].concat();
    assert_eq!(given(past, fire(2 * MINUTE)), Err(Error::NotDue));
}

#[test]
fn while_a_run_is_open_the_next_time_can_only_be_passed_over() {
    let past = vec![created(), fired()];
    assert_eq!(given(past.clone(), fire(2 * MINUTE)), Err(Error::StillRunning));
    let (due, next) = (2 * MINUTE, Some(3 * MINUTE));
    let pass = Command::PassOver { due, next, reason: PassedOver::StillRunning };
    let passed = Event::PassedOver { due, next, reason: PassedOver::StillRunning };
    assert_eq!(given(past.clone(), pass.clone()), Ok(vec![passed.clone()]));
    let past = [past, vec![passed]].concat();
    assert_eq!(given(past.clone(), pass), Err(Error::NotDue), "once");
    let past = [past, vec![ended()]].concat();
    assert_eq!(given(past, fire(3 * MINUTE)).unwrap().len(), 1);
}

#[test]
fn only_the_open_run_can_be_ended_and_only_once() {
    let end = |due| Command::EndRun { due, outcomes: outcomes() };
    assert_eq!(given(vec![created()], end(MINUTE)), Err(Error::NotThisRun));
    assert_eq!(given(vec![created(), fired()], end(2 * MINUTE)), Err(Error::NotThisRun));
    assert_eq!(given(vec![created(), fired()], end(MINUTE)), Ok(vec![ended()]));
    assert_eq!(given(vec![created(), fired(), ended()], end(MINUTE)), Err(Error::NotThisRun));
}

#[test]
fn a_schedule_that_is_switched_off_has_no_next_time() {
    let off = Settings { enabled: false, ..settings() };
    let change = Command::Change { settings: off.clone(), next: Some(5 * MINUTE) };
    let changed = Event::Changed { settings: off.clone(), next: None };
    assert_eq!(given(vec![created()], change), Ok(vec![changed.clone()]));
    assert_eq!(given(vec![created(), changed], fire(MINUTE)), Err(Error::NotDue));
    let Event::Created(mut created) = created() else { unreachable!("it is made") };
    created.settings = off;
    let made = given(vec![], Command::Create(created.clone()));
    created.next = None;
    assert_eq!(made, Ok(vec![Event::Created(created)]));
}

#[test]
fn changing_nothing_is_no_event() {
    let same = Command::Change { settings: settings(), next: Some(MINUTE) };
    assert_eq!(given(vec![created()], same), Ok(vec![]));
}

#[test]
fn a_deleted_schedule_is_not_found_and_never_fires() {
    let delete = Command::Delete { reason: Deleted::Asked };
    let gone = Event::Deleted { reason: Deleted::Asked };
    assert_eq!(given(vec![], delete.clone()), Err(Error::NotFound));
    assert_eq!(given(vec![created(), fired()], delete.clone()), Ok(vec![gone.clone()]));
    let past = vec![created(), fired(), gone];
    assert_eq!(given(past.clone(), delete), Ok(vec![]));
    assert_eq!(given(past.clone(), fire(2 * MINUTE)), Err(Error::NotFound));
    let end = Command::EndRun { due: MINUTE, outcomes: outcomes() };
    assert_eq!(given(past, end), Err(Error::NotFound));
}

#[test]
fn a_number_that_was_given_is_not_given_again() {
    let Event::Created(again) = created() else { unreachable!("it is made") };
    for past in [vec![created()], vec![created(), Event::Deleted { reason: Deleted::Asked }]] {
        let refused = given(past, Command::Create(again.clone()));
        assert_eq!(refused, Err(Error::AlreadyExists));
    }
}

#[test]
fn an_expression_has_five_fields_and_one_spelling() {
    assert_eq!("  0 2\t* *  1-5 ".parse::<Cron>().unwrap().as_str(), "0 2 * * 1-5");
    for wrong in ["", "0 2 * *", "0 0 2 * * *", "0 2 * * * Europe/Berlin", "0 2 * * ä"] {
        assert!(wrong.parse::<Cron>().is_err(), "{wrong}");
    }
    assert!(format!("{} 2 * * *", "1,".repeat(200)).parse::<Cron>().is_err());
    for wrong in ["", "Europe/Berlin UTC", "../../etc/passwd", &"a".repeat(65)] {
        assert!(wrong.parse::<Timezone>().is_err(), "{wrong}");
    }
}

#[test]
fn stored_schedules_can_be_read_for_ever() {
    for event in [
        created(),
        Event::Changed { settings: Settings { enabled: false, ..settings() }, next: None },
        fired(),
        Event::PassedOver {
            due: MINUTE,
            next: Some(2 * MINUTE),
            reason: PassedOver::OwnerDisabled,
        },
        ended(),
        Event::Deleted { reason: Deleted::ApplicationRemoved },
    ] {
        assert_stored_as_promised(&event);
    }
}
