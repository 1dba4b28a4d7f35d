//! The rules of leases, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cqrs_es::test::TestFramework;

use super::*;
use crate::fixture::assert_stored_as_promised;

fn app(id: &str) -> Holder {
    Holder::Application(id.parse().unwrap())
}

fn ours() -> Holder {
    app("memos-0a1b2c3d")
}

fn theirs() -> Holder {
    app("memos-99999999")
}

fn acquired(holder: Holder) -> Event {
    Event::Acquired { holder }
}

fn quarantined() -> Event {
    Event::Quarantined { holder: ours(), until: 1_000, reason: "its guest was destroyed".into() }
}

async fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    TestFramework::<Lease>::with(()).given(past).when_async(command).await.inspect_result()
}

#[tokio::test]
async fn a_free_thing_can_be_acquired() {
    let events = given(vec![], Command::Acquire { holder: ours() }).await;
    assert_eq!(events, Ok(vec![acquired(ours())]));
}

#[tokio::test]
async fn a_held_thing_is_refused_to_another_and_names_its_holder() {
    let events = given(vec![acquired(ours())], Command::Acquire { holder: theirs() }).await;
    assert_eq!(events, Err(Error::Held { by: ours() }));
}

#[tokio::test]
async fn acquiring_what_one_holds_already_changes_nothing() {
    let events = given(vec![acquired(ours())], Command::Acquire { holder: ours() }).await;
    assert_eq!(events, Ok(vec![]));
}

#[tokio::test]
async fn a_released_thing_can_be_acquired_by_another() {
    let past = vec![acquired(ours()), Event::Released { holder: ours() }];
    let events = given(past, Command::Acquire { holder: theirs() }).await;
    assert_eq!(events, Ok(vec![acquired(theirs())]));
}

#[tokio::test]
async fn only_the_holder_gives_it_back() {
    let events = given(vec![acquired(ours())], Command::Release { holder: theirs() }).await;
    assert_eq!(events, Err(Error::NotHolder));
    let command = Command::Quarantine { holder: theirs(), until: 1, reason: String::new() };
    assert_eq!(given(vec![acquired(ours())], command).await, Err(Error::NotHolder));
}

#[tokio::test]
async fn giving_back_twice_is_no_error() {
    let past = vec![acquired(ours()), Event::Released { holder: ours() }];
    assert_eq!(given(past, Command::Release { holder: ours() }).await, Ok(vec![]));
    let past = vec![acquired(ours()), quarantined()];
    assert_eq!(given(past, Command::Release { holder: ours() }).await, Ok(vec![]));
}

#[tokio::test]
async fn a_quarantined_thing_is_refused_even_after_its_time_until_it_was_looked_at() {
    let past = || vec![acquired(ours()), quarantined()];
    let refused = given(past(), Command::Acquire { holder: theirs() }).await;
    assert_eq!(refused, Err(Error::Quarantined { until: 1_000 }));
    let early = given(past(), Command::Clear { now: 999 }).await;
    assert_eq!(early, Err(Error::Quarantined { until: 1_000 }));
    let cleared = given(past(), Command::Clear { now: 1_000 }).await;
    assert_eq!(cleared, Ok(vec![Event::Cleared]));
    let past = vec![acquired(ours()), quarantined(), Event::Cleared];
    let again = given(past, Command::Acquire { holder: theirs() }).await;
    assert_eq!(again, Ok(vec![acquired(theirs())]));
}

#[tokio::test]
async fn what_a_stranger_has_is_refused_until_a_look_found_it_gone() {
    let foreign = Event::FoundForeign { reason: "a guest of someone else".into() };
    let refused = given(vec![foreign.clone()], Command::Acquire { holder: ours() }).await;
    assert_eq!(refused, Err(Error::Foreign));
    let cleared = given(vec![foreign], Command::Clear { now: 0 }).await;
    assert_eq!(cleared, Ok(vec![Event::Cleared]));
}

#[tokio::test]
async fn a_held_thing_is_never_cleared() {
    let events = given(vec![acquired(ours())], Command::Clear { now: i64::MAX }).await;
    assert_eq!(events, Err(Error::Held { by: ours() }));
}

#[test]
fn whatever_is_asked_there_is_one_holder_at_a_time() {
    // Every sequence of five commands by two holders: an acquisition only ever follows a free state.
    let commands: Vec<Command> = [ours(), theirs()]
        .into_iter()
        .flat_map(|holder| {
            [
                Command::Acquire { holder: holder.clone() },
                Command::Release { holder: holder.clone() },
                Command::Quarantine { holder, until: 5, reason: String::new() },
            ]
        })
        .chain([
            Command::Clear { now: 4 },
            Command::Clear { now: 6 },
            Command::FindForeign { reason: String::new() },
        ])
        .collect();
    let mut histories = 0;
    let mut states = vec![(Lease::default(), None::<Holder>)];
    for _ in 0..5 {
        let mut next = Vec::new();
        for (lease, holder) in &states {
            for command in &commands {
                let Ok(events) = lease.decide(command.clone()) else { continue };
                let (mut lease, mut holder) = (lease.clone(), holder.clone());
                for event in events {
                    if let Event::Acquired { holder: by } = &event {
                        assert_eq!(holder, None, "two holders at once");
                        holder = Some(by.clone());
                    } else {
                        holder = None;
                    }
                    lease = lease.evolve(event);
                }
                assert_eq!(lease.holder(), holder.as_ref());
                histories += 1;
                next.push((lease, holder));
            }
        }
        states = next;
    }
    assert!(histories > 5_000, "only {histories} histories were tried");
}

#[test]
fn stored_leases_can_be_read_for_ever() {
    for event in [
        acquired(ours()),
        Event::Released { holder: ours() },
        quarantined(),
        Event::Cleared,
        Event::FoundForeign { reason: "a guest of someone else".into() },
    ] {
        assert_stored_as_promised(&event);
    }
}
