//! A log with events that this program does not know: told at start, before anything is done with it.

use proximity_eventstore::{Append, Expected, Lane, NewEvent, Options, Store, StreamAppend};
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::process::Site;
use uuid::Uuid;

fn options(site: &Site) -> Options {
    site.database_url().map_or_else(|| Options::sqlite(&site.data), Options::postgres)
}

/// Stores an event as another version of the program would; returns the log's head.
async fn store(site: &Site, event_type: &str, event_version: &str) -> u64 {
    let store = Store::open(options(site)).await.unwrap();
    let event = NewEvent {
        event_type: event_type.to_owned(),
        event_version: event_version.to_owned(),
        payload: "{}".to_owned(),
    };
    let append = Append {
        id: Uuid::now_v7(),
        lane: Lane::Outcome,
        streams: vec![StreamAppend {
            metadata: None,
            aggregate_type: "future".to_owned(),
            aggregate_id: Uuid::now_v7().to_string(),
            expected: Expected::At(0),
            events: vec![event],
        }],
        assertions: vec![],
        side: vec![],
        metadata: "{}".to_owned(),
        fence: None,
        idempotency: None,
    };
    store.append(append).await.unwrap();
    let head = store.head().await.unwrap();
    store.close().await;
    head
}

async fn head(site: &Site) -> u64 {
    let store = Store::open_read_only(options(site)).await.unwrap();
    let head = store.head().await.unwrap();
    store.close().await;
    head
}

async fn an_unknown_event_stops_the_start(kind: Kind) {
    // A type that nobody knows, and a version of one that is known.
    for (event_type, event_version) in [("application.teleported", "1"), ("lease.acquired", "99")] {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new(kind, folder.path()).await;
        site.serve().await.terminate();
        let last = store(&site, event_type, event_version).await;
        for _ in 0..2 {
            let output = site.command(&["serve", "--listen", &site.listen]).output().unwrap();
            assert!(!output.status.success(), "it starts");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains(&format!("{event_type} of version {event_version}")), "{text}");
            assert!(text.contains("newer version"), "{text}");
            assert_eq!(head(&site).await, last, "something was appended all the same");
        }
        figure!(
            "{kind:?}: a log with {event_type} of version {event_version} is not served, twice"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_stops_the_start_on_sqlite() {
    an_unknown_event_stops_the_start(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_stops_the_start_on_postgresql() {
    an_unknown_event_stops_the_start(Kind::Postgres).await;
}
