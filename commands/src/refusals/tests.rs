//! What is promised about the audit of refusals, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::testing::{Site, Stopped, a_user};

fn refused() -> Error {
    Error::forbidden("admin.required", "only an administrator may do this")
}

async fn office() -> (Site, Arc<Stopped>, Refusals) {
    let site = Site::open().await;
    let clock = Stopped::at(1_700_000_040 * SECOND);
    let refusals = Refusals::new(site.store.clone(), Arc::clone(&clock) as Arc<dyn Clock>);
    (site, clock, refusals)
}

async fn stored(site: &Site) -> Vec<Counted> {
    let events = site.store.feed(0, 10_000).await.unwrap();
    let read = |payload: &str| match serde_json::from_str(payload).unwrap() {
        Event::Counted(counted) => counted,
    };
    events.iter().map(|event| read(&event.payload)).collect()
}

#[tokio::test]
async fn a_thousand_refusals_of_one_caller_are_one_event_a_minute() {
    let (site, clock, refusals) = office().await;
    for _ in 0..1_000 {
        refusals.note(&a_user(7), "host.create", &refused());
    }
    refusals.note(&a_user(8), "host.create", &refused());
    clock.advance(MINUTE);
    refusals.note(&a_user(7), "host.delete", &refused());
    assert_eq!(refusals.flush().await.unwrap(), 2);
    assert_eq!(refusals.flush_all().await.unwrap(), 1);
    let mut counts: Vec<_> =
        stored(&site).await.into_iter().map(|c| (c.caller, c.times, c.commands)).collect();
    counts.sort();
    let row = |caller: &str, times, command: &str| (caller.to_owned(), times, vec![command.into()]);
    assert_eq!(
        counts,
        [
            row("user/7", 1, "host.delete"),
            row("user/7", 1_000, "host.create"),
            row("user/8", 1, "host.create")
        ]
    );
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
    assert_eq!(events, MAX_KEYS + 1);
    let counted = stored(&site).await;
    let total: u64 = counted.iter().map(|counted| counted.times).sum();
    assert_eq!(total, flood as u64);
    assert!(counted.iter().all(|counted| counted.accounts.len() <= MAX_NAMED));
    assert!(counted.iter().any(|counted| counted.caller == "others"));
}

#[tokio::test]
async fn what_cannot_be_stored_stays_counted() {
    let (site, clock, refusals) = office().await;
    refusals.note(&a_user(7), "host.create", &refused());
    clock.advance(MINUTE);
    site.store.clone().close().await;
    refusals.flush().await.unwrap_err();
    assert_eq!(refusals.lock().len(), 1);
}
