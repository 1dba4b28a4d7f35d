//! A process that is killed while it appends: nothing acknowledged is missing, nothing applied twice.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proximity_eventstore::{Append, Expected, Lane, Options, Store};
use rand::Rng as _;
use uuid::Uuid;

use crate::child::{Second, ready};
use crate::counting::View;
use crate::support::{append, assert_whole, to_stream, whole_log};
use crate::{figures, on_both_stores};

const ROUNDS: usize = 10;
const CLIENTS: usize = 8;

/// The one append under an id: nothing but the id keeps it from being stored twice.
fn append_of(id: Uuid) -> Append {
    Append {
        id,
        lane: Lane::User(format!("u{}", id.as_bytes()[15] % 4)),
        streams: vec![
            to_stream(&id.to_string(), Expected::Any, 2),
            to_stream(&format!("shared-{}", id.as_bytes()[14] % 8), Expected::Any, 1),
        ],
        ..append()
    }
}

/// Says each id before it is submitted and again when it was acknowledged.
///
/// Argument: the database's URL, or the data directory.
pub async fn append_until_killed(argument: &str) -> serde_json::Value {
    let options = if argument.starts_with("postgres:") {
        Options::postgres(argument)
    } else {
        Options::sqlite(PathBuf::from(argument))
    };
    let store = Store::open(options).await.unwrap();
    ready();
    let say = |word: &str, id: Uuid| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{word} {id}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    for _ in 0..CLIENTS {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let id = Uuid::now_v7();
                say("submitting", id);
                store.append(append_of(id)).await.unwrap();
                say("acknowledged", id);
            }
        });
    }
    std::future::pending().await
}

fn ids(lines: &[String], word: &str) -> HashSet<Uuid> {
    lines.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
}

on_both_stores! {
    async fn a_killed_process_loses_nothing_it_acknowledged(home: &Home) {
        let argument =
            if home.is_sqlite() { home.dir().display().to_string() } else { home.url() };
        let view = View::open(home).await;
        let (mut acknowledged, mut open, mut stored_unanswered) = (HashSet::new(), HashSet::new(), 0);
        let (mut lost, mut twice) = (0, 0);
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let mut second = Second::start("crash", &argument);
            second.go();
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..400))).await;
            let lines = tokio::task::spawn_blocking(|| second.kill()).await.unwrap();
            let now_acknowledged = ids(&lines, "acknowledged");
            let unanswered: HashSet<_> =
                ids(&lines, "submitting").difference(&now_acknowledged).copied().collect();
            acknowledged.extend(now_acknowledged);

            let store = home.open().await;
            let log = whole_log(&store, 1_000).await;
            let before = log.len() as u64;
            let stored: HashSet<Uuid> =
                log.iter().filter_map(|recorded| recorded.aggregate_id.parse().ok()).collect();
            lost += acknowledged.difference(&stored).count();
            stored_unanswered += unanswered.intersection(&stored).count();
            // Submitting again settles what nobody heard the end of.
            for id in &unanswered {
                store.append(append_of(*id)).await.unwrap();
            }
            let log = whole_log(&store, 1_000).await;
            assert_whole(&log);
            let missing = unanswered.iter().filter(|id| !stored.contains(*id)).count() as u64;
            assert_eq!(log.len() as u64, before + 3 * missing);
            twice += log.iter().filter(|r| r.aggregate_id.parse::<Uuid>().is_ok() && r.sequence > 2).count();
            view.catch_up(&store).await;
            assert_eq!(view.total().await, log.len() as u64);
            open.extend(unanswered);
            store.close().await;
        }
        let store = home.open().await;
        let live = view.counts().await;
        let rebuilt = View::open(home).await;
        rebuilt.catch_up(&store).await;
        figures!(
            home,
            "killed {ROUNDS} times: {} acknowledged, {lost} of them missing, {} unanswered ({stored_unanswered} of them stored), {twice} applied twice, {:?}",
            acknowledged.len(), open.len(), begun.elapsed()
        );
        assert_eq!((lost, twice), (0, 0));
        assert_eq!(rebuilt.counts().await, live);
        assert!(acknowledged.len() > ROUNDS, "it hardly worked");
    }
}
