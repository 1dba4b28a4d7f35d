//! Many callers at once: one winner, no gap, nothing lost when callers go away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_eventstore::{Append, AppendError, Expected, Idempotency, Options, Outcome, Store};
use rand::Rng as _;
use serde_json::json;
use tokio::sync::Barrier;

use crate::child::{Second, ready};
use crate::counting::View;
use crate::support::{Plug, assert_whole, one, whole_log};
use crate::{figures, on_both_stores};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Tally {
    won: u32,
    refused: u32,
    other: Vec<String>,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.won += more.won;
        self.refused += more.refused;
        self.other.extend(more.other);
    }
}

/// `racers` callers take one free lease at the same moment.
async fn race(store: &Store, lease: &str, racers: usize) -> Tally {
    let start = Arc::new(Barrier::new(racers));
    let callers: Vec<_> = (0..racers)
        .map(|_| {
            let (store, lease, start) = (store.clone(), lease.to_owned(), Arc::clone(&start));
            tokio::spawn(async move {
                let append = one(&lease, Expected::At(0));
                start.wait().await;
                store.append(append).await
            })
        })
        .collect();
    let mut tally = Tally::default();
    for caller in callers {
        match caller.await.unwrap() {
            Ok(_) => tally.won += 1,
            Err(AppendError::Conflict { expected: 0, actual: 1, .. }) => tally.refused += 1,
            Err(other) => tally.other.push(other.to_string()),
        }
    }
    tally
}

/// Argument: the database's URL, a space, the number of racers.
pub async fn second_racers(argument: &str) -> serde_json::Value {
    let (url, racers) = argument.split_once(' ').unwrap();
    let store = Store::open(Options::postgres(url)).await.unwrap();
    ready();
    let racers: usize = racers.parse().unwrap();
    let tally = race(&store, &format!("lease-{racers}"), racers).await;
    store.close().await;
    json!(tally)
}

on_both_stores! {
    async fn of_any_number_of_racers_one_wins(home: &Home) {
        let store = home.open().await;
        for racers in [2usize, 10, 100, 1_000] {
            let here = if home.is_sqlite() { racers } else { racers / 2 };
            let lease = format!("lease-{here}");
            let mut second = (!home.is_sqlite()).then(|| {
                Second::start("racers", &format!("{} {here}", home.url()))
            });
            let begun = Instant::now();
            if let Some(second) = &mut second {
                second.go();
            }
            let mut tally = race(&store, &lease, here).await;
            if let Some(second) = second {
                tally.add(serde_json::from_value(second.result()).unwrap());
            }
            figures!(
                home,
                "{racers} racers in {} process(es): {} won, {} refused, {} other errors, {:?}",
                if home.is_sqlite() { 1 } else { 2 }, tally.won, tally.refused, tally.other.len(), begun.elapsed()
            );
            assert_eq!((tally.won, tally.refused as usize, &tally.other), (1, racers - 1, &vec![]));
            assert_eq!(store.load_stream("thing", &lease).await.unwrap().len(), 1);
        }
    }

    async fn of_racers_in_one_batch_one_wins(home: &Home) {
        let store = Store::open(Options { batch: 1_000, ..home.options() }).await.unwrap();
        for racers in [2usize, 10, 100, 1_000] {
            let plug = Plug::put(home, &store).await;
            let before = store.stats();
            let race = tokio::spawn({
                let store = store.clone();
                async move { race(&store, &format!("lease-{racers}"), racers).await }
            });
            while store.stats().waiting < racers {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            plug.pull().await;
            let tally = race.await.unwrap();
            let after = store.stats();
            figures!(
                home,
                "{racers} racers in {} batch: {} won, {} refused, {} other errors",
                after.batches - before.batches, tally.won, tally.refused, tally.other.len()
            );
            assert_eq!(after.batches - before.batches, 1);
            assert_eq!(after.stale - before.stale, racers as u64 - 1);
            assert_eq!((tally.won, tally.refused as usize, &tally.other), (1, racers - 1, &vec![]));
        }
    }

    async fn of_callers_with_one_idempotency_key_one_is_stored(home: &Home) {
        const CALLERS: usize = 100;
        // On PostgreSQL the callers sit in two stores, as in two servers.
        let first = home.open().await;
        let second = if home.is_sqlite() { first.clone() } else { home.open().await };
        let callers: Vec<_> = (0..CALLERS)
            .map(|n| {
                let store = if n % 2 == 0 { first.clone() } else { second.clone() };
                let append = Append {
                    idempotency: Some(Idempotency {
                        actor: "u1".to_owned(),
                        key: "POST /apps k1".to_owned(),
                        fingerprint: "f".to_owned(),
                        answer: Some("{}".to_owned()),
                    }),
                    ..one(&format!("app-{n}"), Expected::At(0))
                };
                tokio::spawn(async move { store.append(append).await })
            })
            .collect();
        let (mut stored, mut replayed) = (0, 0);
        for caller in callers {
            match caller.await.unwrap().unwrap() {
                Outcome::Stored(_) => stored += 1,
                Outcome::Replayed { position: 1, answer: Some(_) } => replayed += 1,
                other => panic!("{other:?}"),
            }
        }
        figures!(home, "{CALLERS} callers with one idempotency key: {stored} stored, {replayed} got its answer");
        assert_eq!((stored, replayed), (1, CALLERS - 1));
        assert_eq!(first.head().await.unwrap(), 1);
    }

    async fn errands_and_appends_take_turns(home: &Home) {
        let store = home.open().await;
        let plug = Plug::put(home, &store).await;
        let claims: Vec<_> = (0..200)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    store.claim(&format!("c{n}"), uuid::Uuid::new_v4(), Duration::from_secs(9)).await
                })
            })
            .collect();
        let append = tokio::spawn({
            let store = store.clone();
            async move { store.append(one("a", Expected::At(0))).await }
        });
        while store.stats().waiting < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        plug.pull().await;
        append.await.unwrap().unwrap();
        for claim in claims {
            assert!(claim.await.unwrap().unwrap().is_some());
        }
    }

    async fn a_polling_reader_misses_nothing(home: &Home) {
        const WRITERS: u64 = 20;
        const EACH: u64 = 500;
        // On PostgreSQL the writers sit in two stores, as in two servers.
        let first = home.open().await;
        let second = if home.is_sqlite() { first.clone() } else { home.open().await };
        let reader = Store::open_read_only(home.options()).await.unwrap();
        let begun = Instant::now();
        let polling = tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut polls = 0u32;
            while seen.len() < usize::try_from(WRITERS * EACH).unwrap() {
                let after = seen.last().map_or(0, |r: &proximity_eventstore::Recorded| r.position);
                seen.extend(reader.feed(after, 1_000).await.unwrap());
                polls += 1;
                assert!(begun.elapsed() < Duration::from_secs(120), "only {} events seen", seen.len());
            }
            (seen, polls)
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = if writer % 2 == 0 { first.clone() } else { second.clone() };
                tokio::spawn(async move {
                    for n in 0..EACH {
                        store.append(one(&format!("w{writer}"), Expected::At(n))).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let written = begun.elapsed();
        let (seen, polls) = polling.await.unwrap();
        let missed = WRITERS * EACH - seen.len() as u64;
        let disorder = seen.windows(2).filter(|pair| pair[1].position != pair[0].position + 1).count();
        figures!(
            home,
            "{WRITERS} writers, {} events in {written:?}, {polls} polls beside them: {missed} missed, {disorder} out of order",
            WRITERS * EACH
        );
        assert_eq!((missed, disorder), (0, 0));
        assert_whole(&seen);
    }

    async fn cancelled_callers_leave_nothing_half_done(home: &Home) {
        const CALLERS: u64 = 200;
        let store = home.open().await;
        let view = View::open(home).await;
        let callers: Vec<_> = (0..CALLERS)
            .map(|n| {
                let store = store.clone();
                // From before the first poll, evenly on a logarithmic scale; one in ten after the answer.
                let pause = (n % 10 > 0)
                    .then(|| Duration::from_micros(2u64.pow(rand::rng().random_range(0..18))));
                tokio::spawn(async move {
                    let caller = tokio::spawn(async move {
                        store.append(one(&format!("c{n}"), Expected::At(0))).await
                    });
                    match pause {
                        Some(pause) if pause > Duration::from_micros(1) => {
                            tokio::time::sleep(pause).await;
                        }
                        Some(_) => {}
                        None => while !caller.is_finished() {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        },
                    }
                    caller.abort();
                    caller.await
                })
            })
            .collect();
        let (mut answered, mut cancelled) = (0, 0);
        for caller in callers {
            match caller.await.unwrap() {
                Ok(outcome) => {
                    outcome.unwrap();
                    answered += 1;
                }
                Err(_) => cancelled += 1,
            }
        }
        for n in 0..100 {
            store.append(one(&format!("later{n}"), Expected::At(0))).await.unwrap();
        }
        let log = whole_log(&store, 64).await;
        assert_whole(&log);
        view.catch_up(&store).await;
        let committed = log.iter().filter(|r| r.aggregate_id.starts_with('c')).count();
        let later = log.iter().filter(|r| r.aggregate_id.starts_with("later")).count();
        let idle = home.idle_in_transaction().await;
        let viewed = view.total().await;
        figures!(
            home,
            "{CALLERS} callers, {cancelled} cancelled, {answered} answered: {committed} committed, view counts {viewed} of {}, {later} of 100 later appends stored, {idle} idle in transaction",
            log.len()
        );
        assert!(cancelled > 0 && answered > 0, "cancelled at one point only");
        assert!(committed >= answered);
        assert_eq!((later, idle), (100, 0));
        assert_eq!(viewed, log.len() as u64);
    }
}
