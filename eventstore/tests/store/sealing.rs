//! Whoever changes, removes or rewrites sealed events is found, and told by position.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_eventstore::{
    Append, Expected, Options, PublishedHead, SealFault, Store, sqlite_file, verify,
};

use crate::support::{Home, append, one, to_stream};
use crate::{figures, on_both_stores};

fn new_key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

/// What somebody with every right on the database can do: no trigger is in the way.
async fn tamper(home: &Home, sql: &str) {
    if home.is_sqlite() {
        let connection = rusqlite::Connection::open(sqlite_file(home.dir())).unwrap();
        connection
            .execute_batch(&format!(
                "drop trigger if exists events_are_never_changed;
                 drop trigger if exists events_are_never_deleted; {sql}"
            ))
            .unwrap();
    } else {
        let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
        sqlx::raw_sql(&format!("alter table events disable trigger all; {sql}"))
            .execute(&pool)
            .await
            .unwrap();
    }
}

async fn sealed_to(store: &Store, position: u64) {
    let begun = Instant::now();
    while store.last_seal().await.unwrap().is_none_or(|seal| seal.last < position) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is sealed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

on_both_stores! {
    async fn what_is_stored_is_sealed_within_a_second_and_published(home: &Home) {
        let (key, outside) = (new_key(), tempfile::TempDir::new().unwrap());
        let options = Options {
            seal_key: Some(key.clone()),
            publish_dir: Some(outside.path().to_owned()),
            ..home.options()
        };
        let store = Store::open(options.clone()).await.unwrap();
        for n in 0..3 {
            let streams = vec![to_stream("a", Expected::At(n * 1_200), 1_200)];
            store.append(Append { streams, ..append() }).await.unwrap();
        }
        let begun = Instant::now();
        sealed_to(&store, 3_600).await;
        let lag = begun.elapsed();
        store.close().await;
        let store = Store::open(options).await.unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        sealed_to(&store, 3_601).await;
        let mut head = None;
        while head.as_ref().is_none_or(|head: &PublishedHead| head.last_position < 3_601) {
            head = PublishedHead::read(outside.path(), store.incarnation()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let report = verify(&store, &[key.verifying_key()], head.as_ref()).await.unwrap();
        figures!(home, "3,600 events sealed {lag:?} later; {report:?}");
        assert_eq!((report.events, report.sealed_to, report.faults), (3_601, 3_601, vec![]));
    }

    async fn each_kind_of_tampering_is_found(home: &Home) {
        let (key, outside) = (new_key(), tempfile::TempDir::new().unwrap());
        let options = Options {
            seal_key: Some(key.clone()),
            publish_dir: Some(outside.path().to_owned()),
            ..home.options()
        };
        let store = Store::open(options).await.unwrap();
        store.append(Append { streams: vec![to_stream("a", Expected::At(0), 100)], ..append() }).await.unwrap();
        // close() seals what is left.
        store.close().await;
        let store = Store::open_read_only(home.options()).await.unwrap();
        let head = PublishedHead::read(outside.path(), store.incarnation()).unwrap().unwrap();
        let trusted = [key.verifying_key()];
        let changed = |position| vec![SealFault::Changed { position }];
        let (json, text) = if home.is_sqlite() { ("", "") } else { ("::json", "::text") };
        for (what, does, undoes, expected) in [
            (
                "a byte of a payload",
                format!("update events set payload = '{{\"n\": 77}}'{json} where position = 42"),
                format!("update events set payload = '{{\"n\": 41}}'{json} where position = 42"),
                changed(42),
            ),
            (
                "blank space in metadata",
                format!("update events set metadata = '{{ }}'{json} where position = 7"),
                format!("update events set metadata = '{{}}'{json} where position = 7"),
                changed(7),
            ),
            (
                "a time",
                "update events set recorded_at = recorded_at + 1 where position = 100".to_owned(),
                "update events set recorded_at = recorded_at - 1 where position = 100".to_owned(),
                changed(100),
            ),
            (
                "two events swapped",
                "update events set sequence = 1000 where position = 10; update events set sequence = 10 where position = 11; update events set sequence = 11 where position = 10".to_owned(),
                "update events set sequence = 1000 where position = 10; update events set sequence = 11 where position = 11; update events set sequence = 10 where position = 10".to_owned(),
                vec![SealFault::Changed { position: 10 }, SealFault::Changed { position: 11 }],
            ),
            (
                "an event removed",
                "create table kept as select * from events where position = 50; delete from events where position = 50".to_owned(),
                "insert into events select * from kept; drop table kept".to_owned(),
                vec![SealFault::Missing { position: 50 }],
            ),
            (
                "the first event removed",
                "create table kept as select * from events where position = 1; delete from events where position = 1".to_owned(),
                "insert into events select * from kept; drop table kept".to_owned(),
                vec![SealFault::Missing { position: 1 }],
            ),
            (
                "the tail removed, seals and all",
                "create table kept as select * from seals; delete from seals".to_owned(),
                "insert into seals select * from kept; drop table kept".to_owned(),
                vec![SealFault::Truncated { published: 1, found: 0 }],
            ),
            (
                "a signature",
                format!("update seals set key_id = key_id{text} || 'x'"),
                format!("update seals set key_id = substr(key_id{text}, 1, 16)"),
                vec![SealFault::UnknownKey { block: 1, key_id: format!("{}x", head.key_id) }],
            ),
        ] {
            tamper(home, &does).await;
            let found = verify(&store, &trusted, Some(&head)).await.unwrap().faults;
            figures!(home, "{what}: {found:?}");
            assert_eq!(found, expected, "{what}");
            tamper(home, &undoes).await;
            let found = verify(&store, &trusted, Some(&head)).await.unwrap().faults;
            assert_eq!(found, [], "after {what} was undone");
        }

        // Written anew with another key, or with the stolen one: only the published head tells.
        drop(store);
        tamper(home, &format!("delete from seals; update events set payload = '{{\"n\": 0}}'{json} where position = 42")).await;
        let store = Store::open(Options { seal_key: Some(key.clone()), ..home.options() }).await.unwrap();
        sealed_to(&store, 100).await;
        let alone = verify(&store, &trusted, None).await.unwrap().faults;
        let found = verify(&store, &trusted, Some(&head)).await.unwrap().faults;
        figures!(home, "rewritten with the stolen key: without the published head {alone:?}, with it {found:?}");
        assert_eq!(found, [SealFault::Rewritten { block: 1 }]);
    }

    async fn a_chain_that_was_cut_is_not_extended(home: &Home) {
        let (key, outside) = (new_key(), tempfile::TempDir::new().unwrap());
        let options = Options {
            seal_key: Some(key),
            publish_dir: Some(outside.path().to_owned()),
            seal_every: Duration::from_millis(20),
            ..home.options()
        };
        let store = Store::open(options.clone()).await.unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        store.close().await;
        tamper(home, "delete from seals").await;
        let store = Store::open(options).await.unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        store.clone().close().await;
        assert_eq!(store.last_seal().await.unwrap(), None);
    }
}
