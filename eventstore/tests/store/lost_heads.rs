//! Heads of a server that is no more, and statements that went with them: what is missed, and what is not.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proximity_eventstore::{Began, Expected, FaultKind, Life, Sealing, Signed, Store};
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

/// The disk of the witness fails, and another one takes its place.
fn lose(heads: &Path) {
    std::fs::remove_dir_all(heads).unwrap();
    std::fs::create_dir(heads).unwrap();
}

/// A copy from when the log had two events, in another life, takes its place.
async fn put_back(home: &Home, life: uuid::Uuid) {
    let back = format!(
        "delete from events where position > 2; delete from seals where last_position > 2; \
         delete from published; update meta set value = '{life}' where key = 'incarnation'"
    );
    without_triggers(home, &back).await;
}

/// Somebody signs for the log as it is; also for what is wrong with it.
async fn signed_for(home: &Home, key: &SigningKey, heads: &Path, accept: bool) -> Life {
    let store = home.open().await;
    let life = restored(&store, key, heads, "x", None, accept).await.unwrap();
    store.close().await;
    life
}

async fn found(home: &Home, key: &SigningKey, heads: &Path) -> Vec<(FaultKind, u64)> {
    let store = home.open().await;
    let found = kinds(&check(&store, key, heads).await);
    store.close().await;
    found
}

/// A life with four events, of which two are put back, and three more in the life that begins then; all
/// heads of both are lost.
async fn lost_after_a_restore(home: &Home, key: &SigningKey, heads: &Path) {
    went_on(home, key, heads, "one", 0, 4).await;
    let store = home.open().await;
    let first = store.incarnation();
    store.close().await;
    put_back(home, first).await;
    signed_for(home, key, heads, false).await;
    went_on(home, key, heads, "one", 2, 3).await;
    lose(heads);
}

/// Heads are lost in a life that `backup restore` began, and with them, in programs before this one, its
/// statement.
async fn lost_in_a_named_life(home: &Home, forget: &str) {
    let (key, outside) = (new_key(), TempDir::new().unwrap());
    let heads = outside.path();
    went_on(home, &key, heads, "one", 0, 2).await;
    let store = home.open().await;
    let from = store.incarnation();
    store.close().await;
    // As a backup is filled into an empty database.
    let named = "delete from published; \
        update meta set value = '00000000000040008000000000000008' where key = 'incarnation'";
    execute(home, named).await;
    let store = home.open().await;
    let incarnation = store.incarnation();
    let began = Some(Began { incarnation, from, position: 2 });
    store.append(one("log", Expected::At(0))).await.unwrap();
    restored(&store, &key, heads, "a backup", began, false).await.unwrap();
    store.close().await;
    went_on(home, &key, heads, "one", 3, 1).await;
    lose(heads);
    execute(home, forget).await;
    let store = home.open().await;
    let life = restored(&store, &key, heads, "the disk failed", began, true).await.unwrap();
    assert_eq!((life.from, life.position), (incarnation, 4));
    store.close().await;
    went_on(home, &key, heads, "one", 4, 1).await;
    let store = home.open().await;
    assert_eq!(warned(&store, &key, heads).await, [""; 0]);
}

on_both_stores! {
    async fn a_log_that_was_restored_once_loses_its_heads_and_goes_on_as_often_as_it_has_to(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path();
        went_on(home, &key, heads, "one", 0, 2).await;
        let store = home.open().await;
        restored(&store, &key, heads, "a backup", None, false).await.unwrap();
        store.close().await;
        for n in 2..5 {
            went_on(home, &key, heads, "one", n, 1).await;
            lose(heads);
            let store = home.open().await;
            let found = kinds(&check(&store, &key, heads).await);
            assert!(found.iter().all(|(kind, _)| *kind == FaultKind::NoHeads) && !found.is_empty(), "{found:?}");
            restored(&store, &key, heads, "the disk failed", None, true).await.unwrap();
            store.close().await;
            let store = home.open().await;
            assert_eq!(warned(&store, &key, heads).await, [""; 0]);
            store.close().await;
        }
        went_on(home, &key, heads, "one", 5, 1).await;
        let store = home.open().await;
        assert_eq!(warned(&store, &key, heads).await, [""; 0]);
    }

    async fn a_life_whose_heads_are_lost_ends_with_the_first_word_of_it(home: &Home) {
        lost_in_a_named_life(home, "").await;
    }

    async fn so_does_one_whose_statement_nothing_kept(home: &Home) {
        lost_in_a_named_life(home, "delete from installation where key like 'life %'").await;
    }

    async fn one_word_is_enough_for_the_heads_of_all_lives_whatever_positions_they_share(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path();
        lost_after_a_restore(home, &key, heads).await;
        let lost = [(FaultKind::NoHeads, 1), (FaultKind::NoHeads, 3)];
        assert_eq!(found(home, &key, heads).await, lost);
        signed_for(home, &key, heads, true).await;
        assert_eq!(found(home, &key, heads).await, []);
        went_on(home, &key, heads, "one", 5, 1).await;
        assert_eq!(found(home, &key, heads).await, []);
    }

    async fn what_was_said_of_one_life_hides_nothing_of_a_later_one_at_the_same_positions(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path();
        went_on(home, &key, heads, "one", 0, 2).await;
        let store = home.open().await;
        let first = store.incarnation();
        store.close().await;
        signed_for(home, &key, heads, false).await;
        went_on(home, &key, heads, "one", 2, 4).await;
        put_back(home, first).await;
        signed_for(home, &key, heads, false).await;
        lose(heads);
        // Up to 6, of a log that has 2 events now.
        signed_for(home, &key, heads, true).await;
        assert_eq!(found(home, &key, heads).await, []);
        let later = signed_for(home, &key, heads, false).await;
        went_on(home, &key, heads, "one", 2, 3).await;
        assert_eq!(found(home, &key, heads).await, []);
        std::fs::remove_dir_all(heads.join(later.incarnation.to_string())).unwrap();
        assert_eq!(found(home, &key, heads).await, [(FaultKind::NoHeads, 3)]);
    }

    async fn a_statement_that_does_not_say_whose_heads_are_gone_counts_for_what_it_did(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path();
        lost_after_a_restore(home, &key, heads).await;
        let mut life = signed_for(home, &key, heads, true).await;
        // As programs before this one signed it, which left the older life out.
        let proof = life.proof.as_mut().unwrap();
        proof.gone.clear();
        proof.accepted.retain(|fault| fault.position == 3);
        let name = life.incarnation;
        assert!(!serde_json::to_string(&life).unwrap().contains("gone\":"), "{life:?}");
        let signed = serde_json::to_vec(&Signed::new(life, &key).unwrap()).unwrap();
        std::fs::write(heads.join("lives").join(format!("{name}.json")), signed).unwrap();
        execute(home, &format!("delete from installation where key like 'life {name}%'")).await;
        assert_eq!(found(home, &key, heads).await, [(FaultKind::NoHeads, 1)]);
        // Of the life that it began it says nothing.
        signed_for(home, &key, heads, true).await;
        assert_eq!(found(home, &key, heads).await, []);
    }

    async fn a_statement_that_was_changed_in_the_database_is_put_right_from_the_directory(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path();
        went_on(home, &key, heads, "one", 0, 2).await;
        signed_for(home, &key, heads, false).await;
        execute(home, "update installation set value = 'x' where key like 'life %'").await;
        went_on(home, &key, heads, "one", 2, 1).await;
        lose(heads);
        // It still explains the life that it began.
        assert_eq!(found(home, &key, heads).await, [(FaultKind::NoHeads, 1), (FaultKind::NoHeads, 3)]);
    }

    async fn a_statement_that_only_the_database_has_leaves_nothing_behind(home: &Home) {
        let (key, outside, other) = (new_key(), TempDir::new().unwrap(), TempDir::new().unwrap());
        went_on(home, &key, outside.path(), "one", 0, 4).await;
        // Whoever may write there and has the key cuts the end off, and signs that this was a restore.
        let cut = "delete from events where position > 2; delete from seals where last_position > 2; \
            delete from published";
        without_triggers(home, cut).await;
        let store = home.open().await;
        restored(&store, &key, other.path(), "hidden", None, false).await.unwrap();
        store.close().await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::Cut, 3)]);
        store.close().await;
        went_on(home, &key, outside.path(), "one", 2, 1).await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::Rewritten, 3)]);
        // Whoever may also write where the heads are could say so.
        for file in std::fs::read_dir(other.path().join("lives")).unwrap().map(Result::unwrap) {
            let lives = outside.path().join("lives");
            std::fs::create_dir_all(&lives).unwrap();
            std::fs::copy(file.path(), lives.join(file.file_name())).unwrap();
        }
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
    }

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
