//! What waits to be sealed or published for too long: said, and no break. What can never be sealed is one.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_eventstore::{
    Append, Error, Expected, FaultKind, HeadsDir, Sealing, Store, reached, unsealable,
};
use tempfile::TempDir;

use crate::sealing::{
    check, execute, kinds, new_key, restored, sealed_to, sealing, without_triggers,
};
use crate::support::{Home, append, one, to_stream};
use crate::{figures, on_both_stores};

/// Three events, of which one is sealed and published.
async fn begun(home: &Home, key: &SigningKey, outside: &TempDir) -> Store {
    let store = home.open().await;
    store.seal_with(sealing(key, outside.path())).unwrap();
    store.append(one("a", Expected::At(0))).await.unwrap();
    sealed_to(&store, 1).await;
    store.close().await;
    let store = home.open().await;
    for before in [1, 2] {
        store.append(one("a", Expected::At(before))).await.unwrap();
    }
    store
}

/// Closes the log, changes it, and opens it again.
async fn changed(home: &Home, store: Store, sql: &str) -> Store {
    store.close().await;
    without_triggers(home, sql).await;
    home.open().await
}

/// What whoever may only add events does: a copy of the first one at another position, with a time that is
/// fifty years off.
fn added(position: u64) -> String {
    format!(
        "insert into events select {position}, 'thing', 'added', {position}, event_type, event_version, payload, \
         metadata, recorded_at + 1576800000000000 from events where position = 1"
    )
}

on_both_stores! {
    async fn a_gap_that_whoever_may_add_events_leaves_behind_the_last_block_is_a_break(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        assert_eq!(unsealable(&store, None).await.unwrap(), None);
        for (next, gap) in [(6, 4), (9, 8)] {
            execute(home, &added(next)).await;
            store.append(one(&format!("behind {next}"), Expected::At(0))).await.unwrap();
            let found = unsealable(&store, None).await.unwrap().unwrap();
            assert_eq!((found.kind, found.position, found.to), (FaultKind::Removed, 4, 5));
            let report = check(&store, &key, outside.path()).await;
            assert_eq!(kinds(&report).last(), Some(&(FaultKind::Removed, gap)), "{report:?}");
            assert_eq!(report.first_break.unwrap().position, 4);
        }
        let refused = restored(&store, &key, outside.path(), "put back", None, false).await;
        let Err(Error::NotAsSealed { first, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((first.kind, first.position, first.to), (FaultKind::Removed, 4, 5));
        // Whoever seals comes no further, and all say so.
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.clone().close().await;
        assert!(store.seal_state().unwrap().trouble.unwrap().contains("cannot be sealed"));
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::Removed, 4), (FaultKind::Removed, 8)]);
        store.close().await;
    }

    async fn a_log_of_which_nothing_was_sealed_yet_has_no_gap_either(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        execute(home, &added(3)).await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&report), [(FaultKind::Removed, 2)]);
        store.close().await;
    }

    async fn a_time_in_the_future_does_not_hide_that_an_event_waits(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let ahead = "update events set recorded_at = recorded_at + 1576800000000000 where position = 2;";
        let store = changed(home, begun(home, &key, &outside).await, ahead).await;
        assert_eq!(check(&store, &key, outside.path()).await.warnings, [""; 0], "sealed to there just now");
        // The block is broken by that, which is told beside it.
        let aged = "update seals set sealed_at = sealed_at - 7200000000";
        let store = changed(home, store, aged).await;
        let said = "the events 2 to 3 are not sealed, the oldest for 2 hours: a change in them cannot be seen";
        assert_eq!(check(&store, &key, outside.path()).await.warnings, [said]);
        let store = changed(home, store, "update seals set sealed_at = sealed_at + 7200000000").await;
        let life = restored(&store, &key, outside.path(), "put back", None, false).await.unwrap();
        assert_eq!(life.note, "put back; the events 2 to 3 were never sealed");
        store.close().await;
    }

    async fn a_sound_log_is_accused_of_no_gap_while_appends_are_in_flight(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        let another = if home.is_sqlite() { store.clone() } else { home.open().await };
        let writing: Vec<_> = [store.clone(), another].into_iter().enumerate().map(|(n, store)| {
            tokio::spawn(async move {
                for count in 0..300 {
                    let stream = to_stream(&format!("{n} {count}"), Expected::At(0), 40);
                    store.append(Append { streams: vec![stream], ..append() }).await.unwrap();
                }
            })
        }).collect();
        let mut looks = 0;
        while !writing.iter().all(|task| task.is_finished()) {
            let report = check(&store, &key, outside.path()).await;
            assert_eq!((kinds(&report), report.warnings), (vec![], vec![]));
            assert_eq!(unsealable(&store, None).await.unwrap(), None);
            looks += 1;
        }
        for task in writing {
            task.await.unwrap();
        }
        figures!(home, "24,000 unsealed events were looked at {looks} times while they came");
        assert_eq!(store.head().await.unwrap(), 24_003);
        store.close().await;
    }

    async fn events_that_wait_for_a_seal_are_told_after_a_minute(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        let young = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&young), young.warnings), (vec![], vec![]), "they may be sealed in a moment");
        let aged = "update events set recorded_at = recorded_at - 7200000000 where position = 2";
        let store = changed(home, store, aged).await;
        let old = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&old), []);
        let said = "the events 2 to 3 are not sealed, the oldest for 2 hours: a change in them cannot be seen";
        assert_eq!(old.warnings, [said]);
        // A signature stands for them for ever, and says that nothing else does.
        let life = restored(&store, &key, outside.path(), "put back", None, false).await.unwrap();
        assert_eq!(life.note, "put back; the events 2 to 3 were never sealed");
        store.close().await;
    }

    async fn a_log_of_which_nothing_was_ever_sealed_is_a_break_once_it_is_not_young(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        for before in [0, 1] {
            store.append(one("a", Expected::At(before))).await.unwrap();
        }
        let young = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&young), [], "it may be sealed in a moment");
        let aged = "update events set recorded_at = recorded_at - 7200000000 where position = 1";
        let store = changed(home, store, aged).await;
        let old = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&old), [(FaultKind::Unsealed, 1)]);
        let fault = old.first_break.unwrap();
        assert!(fault.to == 2 && fault.detail.contains("nothing was ever sealed"), "{fault:?}");
        // Nor is it signed for by the way.
        let refused = restored(&store, &key, outside.path(), "put back", None, false).await;
        let Err(Error::NotAsSealed { first, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(first.kind, FaultKind::Unsealed);
        // A server that comes seals it: what was not sealed is, and nothing is left to be told.
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 2).await;
        store.close().await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
        store.close().await;
    }

    async fn a_log_that_is_put_back_with_its_youngest_events_unsealed_is_signed_for_as_it_is(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        // All of it is old by now; they were stored within a minute of each other.
        let aged = "update events set recorded_at = recorded_at - 7200000000 where position > 1";
        let store = changed(home, begun(home, &key, &outside).await, aged).await;
        let life = restored(&store, &key, outside.path(), "put back", None, false).await.unwrap();
        assert_eq!(life.note, "put back");
        store.close().await;
    }

    async fn a_log_that_is_put_back_where_its_heads_are_not_is_signed_for_with_that(home: &Home) {
        let (key, outside, other) = (new_key(), TempDir::new().unwrap(), TempDir::new().unwrap());
        // As a backup is filled into an empty database.
        let store = begun(home, &key, &outside).await;
        let store = changed(home, store, "delete from published").await;
        let life = restored(&store, &key, other.path(), "elsewhere", None, false).await.unwrap();
        assert_eq!(life.note, "elsewhere; no head that was published of it was there");
        store.close().await;
    }

    async fn heads_that_are_there_are_counted_although_the_database_has_not_noted_them(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 3).await;
        // As a server leaves it that is killed right behind. The blocks are broken by that, which is told
        // beside it.
        let killed = "update seals set sealed_at = sealed_at - 7200000000 where block > 1; \
                      update published set last_block = 1, last_position = 1";
        let store = changed(home, store, killed).await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((report.warnings, report.lives[0].published_to), (vec![], 3));
        store.close().await;
    }

    async fn what_was_published_last_is_noted_although_nothing_comes_behind_it(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 3).await;
        // Too soon to be noted at once.
        store.append(one("a", Expected::At(3))).await.unwrap();
        sealed_to(&store, 4).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        let noted = async || reached(&store, HeadsDir::new(outside.path()), None).await.unwrap().noted;
        while noted().await != Some((3, 4)) {
            assert!(Instant::now() < deadline, "{:?}", noted().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        store.close().await;
    }

    async fn blocks_that_nobody_publishes_are_told_after_a_minute(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        store.seal_with(Sealing { heads: None, ..sealing(&key, outside.path()) }).unwrap();
        sealed_to(&store, 3).await;
        assert_eq!(check(&store, &key, outside.path()).await.warnings, [""; 0]);
        // Its block is broken by that, which is told beside it.
        let aged = "update seals set sealed_at = sealed_at - 7200000000 where block > 1";
        let store = changed(home, store, aged).await;
        let old = check(&store, &key, outside.path()).await;
        let said = "no head was published behind event 1, for 2 hours: that the log was cut off between there and 3 could not be seen";
        assert_eq!(old.warnings, [said]);
        store.close().await;
    }
}
