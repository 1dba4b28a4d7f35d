//! What is promised about the audit of refusals, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_eventstore::Recorded;

use super::*;
use crate::once::{Once, OnceKey};
use crate::testing::{Site, Stopped, a_user};

const CODE: &str = "admin.required";
const CREATE: &str = "Post /api/proxmox/hosts";
const HOSTS: &str = "/api/proxmox/hosts";

fn refused() -> Error {
    Error::forbidden(CODE, "only an administrator may do this")
}

async fn office() -> (Site, Arc<Stopped>, Refusals) {
    let site = Site::open().await;
    let clock = Stopped::at(1_700_000_040 * SECOND);
    let refusals = Refusals::new(site.store.clone(), Arc::clone(&clock) as Arc<dyn Clock>);
    (site, clock, refusals)
}

fn counted(event: &Recorded) -> Counted {
    match serde_json::from_str(&event.payload).unwrap() {
        Event::Counted(counted) => counted,
    }
}

async fn stored(site: &Site) -> Vec<Counted> {
    site.store.feed(0, 10_000).await.unwrap().iter().map(counted).collect()
}

#[tokio::test]
async fn a_thousand_refusals_of_one_caller_are_a_few_events_a_minute() {
    let (site, clock, refusals) = office().await;
    for _ in 0..1_000 {
        refusals.note(&a_user(7), CREATE, HOSTS, CODE);
    }
    refusals.note(&a_user(8), CREATE, HOSTS, CODE);
    clock.advance(MINUTE);
    refusals.note(&a_user(7), "Delete /api/proxmox/hosts/{id}", "/api/proxmox/hosts/1", CODE);
    assert_eq!(refusals.flush().await.unwrap(), usize::from(ALONE) + 2);
    assert_eq!(refusals.flush_all().await.unwrap(), 1);
    let mut counts: Vec<_> = stored(&site)
        .await
        .into_iter()
        .map(|c| (c.caller, c.times, c.paths.concat()))
        .filter(|(_, times, path)| *times > 1 || path != HOSTS)
        .collect();
    counts.sort();
    let row = |caller: &str, times, path: &str| (caller.to_owned(), times, path.to_owned());
    let together = 1_000 - u64::from(ALONE);
    assert_eq!(counts, [row("user/7", 1, "/api/proxmox/hosts/1"), row("user/7", together, HOSTS)]);
}

#[tokio::test]
async fn the_first_few_stand_alone_each_with_its_caller_and_its_request() {
    let (site, _, refusals) = office().await;
    for number in 0..10 {
        let mut actor = a_user(7);
        actor.request = Some(format!("request-{number}"));
        refusals.note(&actor, CREATE, &format!("{HOSTS}/{number}"), CODE);
    }
    refusals.flush_all().await.unwrap();
    let events = site.store.feed(0, 100).await.unwrap();
    assert_eq!(events.len(), usize::from(ALONE) + 1);
    for (number, event) in events.iter().enumerate() {
        let metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
        let is_alone = number < usize::from(ALONE);
        let request = format!("request-{}", if is_alone { number } else { 9 });
        assert_eq!(metadata["request"], request);
        assert_eq!(metadata["correlation"], request);
        assert_eq!((&metadata["actor"], &metadata["owner"]), (&"user/7".into(), &"7".into()));
        assert_eq!(metadata["command"], if is_alone { CREATE } else { "refusal.count" });
        let counted = counted(event);
        assert_eq!(counted.requests, [request]);
        assert_eq!(counted.paths.len(), if is_alone { 1 } else { MAX_NAMED });
    }
}

#[tokio::test]
async fn a_flood_from_everywhere_is_bounded_and_still_counted() {
    let (site, _, refusals) = office().await;
    let flood = 3 * MAX_KEYS;
    for number in 0..flood {
        let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
        let stranger = Actor::anonymous(Some([10, b, c, d].into()), None);
        refusals.note_login(&stranger, &format!("unknown/{number}"), &refused());
    }
    let events = refusals.flush_all().await.unwrap();
    assert_eq!(events, MAX_ALONE + MAX_KEYS + 1);
    let counted = stored(&site).await;
    let total: u64 = counted.iter().map(|counted| counted.times).sum();
    assert_eq!(total, flood as u64);
    assert!(counted.iter().all(|counted| counted.accounts.len() <= MAX_NAMED));
    assert!(counted.iter().any(|counted| counted.caller == "others"));
}

#[tokio::test]
async fn what_cannot_be_stored_stays_counted() {
    let (site, clock, refusals) = office().await;
    refusals.note(&a_user(7), CREATE, HOSTS, CODE);
    clock.advance(MINUTE);
    site.store.clone().close().await;
    refusals.flush().await.unwrap_err();
    assert_eq!(refusals.lock().all.len(), 1);
    assert_eq!(refusals.lock().alone, 1);
}

#[tokio::test]
async fn a_minute_is_written_down_as_soon_as_it_is_over() {
    let (_site, clock, refusals) = office().await;
    assert_eq!(refusals.next_flush(), Duration::from_secs(60));
    refusals.note(&a_user(7), CREATE, HOSTS, CODE);
    clock.advance(59 * SECOND);
    assert_eq!(refusals.next_flush(), Duration::from_secs(1));
    assert_eq!(refusals.flush().await.unwrap(), 0);
    clock.advance(SECOND);
    assert_eq!(refusals.flush().await.unwrap(), 1);
}

#[tokio::test]
async fn what_a_clock_that_was_ahead_has_counted_does_not_wait_for_that_minute() {
    let (_site, clock, refusals) = office().await;
    clock.advance(100 * MINUTE);
    refusals.note(&a_user(7), CREATE, HOSTS, CODE);
    assert!(refusals.note_unchanged(&keyed("k"), CREATE, HOSTS).await.unwrap());
    clock.advance(-100 * MINUTE);
    assert_eq!(refusals.flush().await.unwrap(), 1);
    let counts = refusals.lock();
    assert_eq!((counts.all.len(), counts.written.len(), counts.alone), (0, 0, 0));
}

/// Somebody who sends an idempotency key along.
fn keyed(key: &str) -> Actor {
    let key = OnceKey { key: key.to_owned(), fingerprint: "f".to_owned() };
    Actor { once: Some(Arc::new(Once::new(key))), ..a_user(7) }
}

#[tokio::test]
async fn a_call_that_changed_nothing_is_counted_when_its_key_cannot_be_taken() {
    let (site, _, refusals) = office().await;
    site.store.clone().close().await;
    // More than the places of a minute: the last one's key alone would have been marked.
    for number in 0..=usize::from(ALONE) {
        refusals.note_unchanged(&keyed(&format!("k{number}")), CREATE, HOSTS).await.unwrap_err();
    }
    let counts = refusals.lock();
    assert_eq!((counts.all.len(), counts.written.len()), (usize::from(ALONE) + 1, 0));
    assert_eq!(counts.alone, usize::from(ALONE));
    assert!(counts.all.values().all(|count| count.times == 1));
}

#[tokio::test]
async fn who_comes_second_under_a_key_takes_no_place() {
    let (_site, _, refusals) = office().await;
    assert!(refusals.note_unchanged(&keyed("k"), CREATE, HOSTS).await.unwrap());
    for _ in 0..ALONE {
        assert!(!refusals.note_unchanged(&keyed("k"), CREATE, HOSTS).await.unwrap());
    }
    let counts = refusals.lock();
    assert_eq!((counts.all.len(), counts.written.len(), counts.alone), (0, 1, 1));
}
