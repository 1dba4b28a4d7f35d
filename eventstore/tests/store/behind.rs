//! What waits to be sealed or published for too long: said, and no break.

use ed25519_dalek::SigningKey;
use proximity_eventstore::{Error, Expected, FaultKind, Sealing, Store};
use tempfile::TempDir;

use crate::on_both_stores;
use crate::sealing::{check, kinds, new_key, restored, sealed_to, sealing, without_triggers};
use crate::support::{Home, one};

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

on_both_stores! {
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
