//! Heads of a server that is no more: where another one goes on, they are missed all the same.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proximity_eventstore::{Expected, FaultKind, Sealing, Store};
use tempfile::TempDir;

use crate::on_both_stores;
use crate::sealing::{
    check, execute, kinds, new_key, restored, sealed_to, sealing, without_triggers,
};
use crate::support::{Home, one};

/// A server with this name seals and publishes `count` events of the stream `thing/<name>`, each in a
/// block of its own, on a log of `head` events.
async fn went_on(home: &Home, key: &SigningKey, heads: &Path, name: &str, head: u64, count: u64) {
    let store = home.open().await;
    let sealing = Sealing { server: name.to_owned(), ..sealing(key, heads) };
    store.seal_with(sealing).unwrap();
    let begun = store.load_stream("thing", name).await.unwrap().len() as u64;
    for n in 0..count {
        store.append(one(name, Expected::At(begun + n))).await.unwrap();
        sealed_to(&store, head + n + 1).await;
    }
    assert_eq!(store.seal_state().unwrap().trouble, None);
    store.close().await;
}

/// What a verification warns of that finds no break.
async fn warned(store: &Store, key: &SigningKey, heads: &Path) -> Vec<String> {
    let report = check(store, key, heads).await;
    assert_eq!(kinds(&report), [], "{report:?}");
    report.warnings
}

on_both_stores! {
    async fn heads_that_went_with_the_end_of_the_log_are_missed_whoever_goes_on(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        went_on(home, &key, outside.path(), "one", 0, 4).await;
        let store = home.open().await;
        assert_eq!(warned(&store, &key, outside.path()).await, [""; 0]);
        let folder = outside.path().join(store.incarnation().to_string());
        store.close().await;
        // All that could tell is gone: the heads, the end of the chain, the database's own memory.
        std::fs::remove_dir_all(folder).unwrap();
        let cut = "delete from events where position > 2; delete from seals where last_position > 2; \
            delete from published";
        without_triggers(home, cut).await;
        for n in [2, 4] {
            went_on(home, &key, outside.path(), "two", n, 2).await;
            let store = home.open().await;
            let said = warned(&store, &key, outside.path()).await;
            assert!(said.len() == 1 && said[0].contains("no head of the events 1 to "), "{said:?}");
            store.close().await;
        }
        // Until somebody with the key says that it is known; it stays in what was signed.
        let store = home.open().await;
        let life = restored(&store, &key, outside.path(), "a new disk", None, false).await.unwrap();
        assert!(life.note.starts_with("a new disk; no head of the events 1 to "), "{life:?}");
        store.close().await;
        went_on(home, &key, outside.path(), "two", 6, 1).await;
        let store = home.open().await;
        assert_eq!(warned(&store, &key, outside.path()).await, [""; 0]);
    }

    async fn heads_that_are_gone_are_missed_although_the_log_is_whole_and_another_goes_on(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        went_on(home, &key, outside.path(), "one", 0, 3).await;
        std::fs::remove_dir_all(outside.path()).unwrap();
        std::fs::create_dir(outside.path()).unwrap();
        went_on(home, &key, outside.path(), "two", 3, 1).await;
        let store = home.open().await;
        let said = warned(&store, &key, outside.path()).await;
        assert!(said.len() == 1 && said[0].contains("no head of the events 1 to "), "{said:?}");
    }

    async fn a_server_that_goes_on_beside_the_heads_of_another_misses_nothing(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        went_on(home, &key, outside.path(), "one", 0, 2).await;
        execute(home, "delete from published").await;
        went_on(home, &key, outside.path(), "two", 2, 2).await;
        let store = home.open().await;
        assert_eq!(warned(&store, &key, outside.path()).await, [""; 0]);
    }

    async fn a_chain_is_known_to_be_cut_where_another_server_published_its_end_elsewhere(home: &Home) {
        let (key, here, elsewhere) = (new_key(), TempDir::new().unwrap(), TempDir::new().unwrap());
        went_on(home, &key, here.path(), "one", 0, 2).await;
        went_on(home, &key, elsewhere.path(), "two", 2, 2).await;
        let store = home.open().await;
        assert_eq!(warned(&store, &key, here.path()).await, [""; 0]);
        store.close().await;
        without_triggers(home, "delete from events where position > 3; delete from seals where last_position > 3").await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, here.path()).await), [(FaultKind::Cut, 4)]);
    }
}
