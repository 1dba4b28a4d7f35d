//! What waits to be sealed or published for too long: said, and no break.

use ed25519_dalek::SigningKey;
use proximity_eventstore::{Expected, Sealing, Store};
use tempfile::TempDir;

use crate::on_both_stores;
use crate::sealing::{
    check, execute, kinds, new_key, restored, sealed_to, sealing, without_triggers,
};
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

on_both_stores! {
    async fn events_that_wait_for_a_seal_are_told_after_a_minute(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = begun(home, &key, &outside).await;
        let young = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&young), young.warnings), (vec![], vec![]), "they may be sealed in a moment");
        store.close().await;
        without_triggers(home, "update events set recorded_at = recorded_at - 7200000000 where position = 2").await;
        let store = home.open().await;
        let old = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&old), []);
        let said = "the events 2 to 3 are not sealed, the oldest for 2 hours: a change in them cannot be seen";
        assert_eq!(old.warnings, [said]);
        // A signature stands for them for ever, and says that nothing else does.
        let life = restored(&store, &key, outside.path(), "put back", None, false).await.unwrap();
        assert_eq!(life.note, "put back; the events 2 to 3 were never sealed");
        store.close().await;
    }

    async fn a_log_that_is_put_back_with_its_youngest_events_unsealed_is_signed_for_as_it_is(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        begun(home, &key, &outside).await.close().await;
        // All of it is old by now; they were stored within a minute of each other.
        without_triggers(home, "update events set recorded_at = recorded_at - 7200000000 where position > 1").await;
        let store = home.open().await;
        let life = restored(&store, &key, outside.path(), "put back", None, false).await.unwrap();
        assert_eq!(life.note, "put back");
        store.close().await;
    }

    async fn a_log_that_is_put_back_where_its_heads_are_not_is_signed_for_with_that(home: &Home) {
        let (key, outside, other) = (new_key(), TempDir::new().unwrap(), TempDir::new().unwrap());
        begun(home, &key, &outside).await.close().await;
        // As a backup is filled into an empty database.
        execute(home, "delete from published").await;
        let store = home.open().await;
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
        store.close().await;
        // Its block is broken by that, which is told beside it.
        without_triggers(home, "update seals set sealed_at = sealed_at - 7200000000 where block > 1").await;
        let store = home.open().await;
        let old = check(&store, &key, outside.path()).await;
        let said = "no head was published behind event 1, for 2 hours: that the log was cut off between there and 3 could not be seen";
        assert_eq!(old.warnings, [said]);
        store.close().await;
    }
}
