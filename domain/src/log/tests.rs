//! What is promised about a restored log, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use uuid::Uuid;

use super::*;
use crate::fixture::assert_stored_as_promised;

fn restored() -> Restored {
    Restored {
        incarnation: Uuid::from_u128(2),
        previous: Uuid::from_u128(1),
        position: 41,
        taken_at: 1_790_000_000_000_000,
        digest: "ab".repeat(32),
    }
}

fn log(events: &[Event]) -> Log {
    events.iter().cloned().fold(Log::default(), Log::evolve)
}

#[test]
fn a_restored_log_waits_for_a_person_once() {
    let observing = log(&[Event::Restored(restored())]);
    assert_eq!(observing.observing(), Some(&restored()));
    let events = observing.decide(Command::ConfirmRestore).unwrap();
    let confirmed = events.into_iter().fold(observing, Log::evolve);
    assert_eq!(confirmed.observing(), None);
    assert_eq!(confirmed.decide(Command::ConfirmRestore), Err(Error::NothingToConfirm));
}

#[test]
fn a_log_that_was_never_restored_has_nothing_to_confirm() {
    assert_eq!(Log::default().decide(Command::ConfirmRestore), Err(Error::NothingToConfirm));
    assert_eq!(Log::default().observing(), None);
}

#[test]
fn a_log_that_is_restored_again_waits_again() {
    let first = Event::Restored(restored());
    let confirmed = Event::RestoreConfirmed { incarnation: Uuid::from_u128(2) };
    let again = Restored { incarnation: Uuid::from_u128(3), ..restored() };
    let log = log(&[first, confirmed, Event::Restored(again.clone())]);
    assert_eq!(log.observing(), Some(&again));
}

#[test]
fn the_events_are_stored_as_promised() {
    assert_stored_as_promised(&Event::Restored(restored()));
    assert_stored_as_promised(&Event::RestoreConfirmed { incarnation: Uuid::from_u128(2) });
}
