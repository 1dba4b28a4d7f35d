//! Blocks that no server of ours made, put behind the last one by somebody who may add rows and holds no
//! key: nothing goes on from them, and nothing is signed for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ed25519_dalek::SigningKey;
use futures_util::FutureExt as _;
use proximity_eventstore::{
    Began, Expected, FaultKind, HeadsDir, Sealing, Store, Trusted, unsealable,
};
use tempfile::TempDir;

use crate::heads_dir::trouble;
use crate::on_both_stores;
use crate::sealing::{
    check, execute, kinds, new_key, restored, sealed_to, sealing, without_triggers,
};
use crate::support::{Home, one};

struct Scene {
    key: SigningKey,
    outside: TempDir,
}

impl Scene {
    /// Two events, each sealed and published in a block of its own.
    async fn begun(home: &Home) -> (Self, Store) {
        let this = Self { key: new_key(), outside: TempDir::new().unwrap() };
        let store = this.serve(home).await;
        for n in 0..2 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
        }
        (this, store)
    }

    /// A server that seals.
    async fn serve(&self, home: &Home) -> Store {
        let store = home.open().await;
        store.seal_with(sealing(&self.key, self.outside.path())).unwrap();
        store
    }

    fn heads(&self) -> HeadsDir {
        HeadsDir::new(self.outside.path())
    }

    /// The newest block that was signed for.
    fn published(&self, store: &Store) -> u64 {
        self.heads().latest(store.incarnation()).unwrap().unwrap().statement.block
    }

    /// What the doctor finds behind the last block.
    async fn found(&self, store: &Store) -> Option<(FaultKind, u64)> {
        let keys = Trusted::new([self.key.verifying_key()]);
        let fault = unsealable(store, Some((keys, self.heads()))).await.unwrap();
        fault.map(|fault| (fault.kind, fault.position))
    }
}

/// A row like that of the first block, with other numbers.
fn made_up(block: u64, first: u64, last: u64) -> String {
    format!(
        "insert into seals (block, first_position, last_position, leaves, hash, key_id, signature, sealed_at, \
         incarnation) select {block}, {first}, {last}, leaves, hash, key_id, signature, sealed_at, incarnation \
         from seals where block = 1"
    )
}

on_both_stores! {
    async fn a_block_that_no_server_made_stops_the_sealing_until_it_is_gone(home: &Home) {
        let (scene, mut store) = Scene::begun(home).await;
        // Far behind the end, a little behind it, under a number that leaves others out, in the next one's place.
        for (number, ahead) in [(1, 1 << 62), (1, 16), (900, 16), (1, 1)] {
            let (last, head) = (store.last_seal().await.unwrap().unwrap(), store.head().await.unwrap());
            assert_eq!(scene.found(&store).await, None);
            execute(home, &made_up(last.block + number, head + 1, head + ahead)).await;
            assert_eq!(scene.found(&store).await, Some((FaultKind::BrokenBlock, head + 1)));
            store.append(one("a", Expected::At(head))).await.unwrap();
            let report = check(&store, &scene.key, scene.outside.path()).await;
            let mut found = kinds(&report);
            // By the hash of an event that the row has from the first block.
            found.retain(|(kind, _)| *kind != FaultKind::Changed);
            assert_eq!(found, [(FaultKind::BrokenBlock, head + 1)]);
            for _ in 0..2 {
                let why = trouble(&store, true).await;
                let said = format!("no block of this log, at position {}", head + 1);
                assert!(why.contains(&said) && why.contains("audit verify"), "{why}");
                assert_eq!(scene.published(&store), last.block, "it was not signed for");
                store.close().await;
                store = scene.serve(home).await;
            }
            trouble(&store, true).await;
            execute(home, &format!("delete from seals where block > {}", last.block)).await;
            trouble(&store, false).await;
            sealed_to(&store, head + 1).await;
            assert_eq!(scene.found(&store).await, None);
        }
        let report = check(&store, &scene.key, scene.outside.path()).await;
        assert_eq!((kinds(&report), report.sealed_to, report.heads), (vec![], 6, report.blocks));
        store.close().await;
    }

    async fn a_block_of_a_strangers_key_is_not_gone_on_with(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        store.close().await;
        let store = home.open().await;
        let stranger = sealing(&new_key(), scene.outside.path());
        let earlier = vec![scene.key.verifying_key()];
        store.seal_with(Sealing { heads: None, earlier, ..stranger }).unwrap();
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        store.close().await;
        let store = scene.serve(home).await;
        assert!(trouble(&store, true).await.contains("a key not known"));
        assert_eq!(scene.found(&store).await, Some((FaultKind::UnknownKey, 3)));
        // Under the name of ours it has no signature of ours.
        let named = "update seals set key_id = (select key_id from seals where block = 1) where block = 3";
        execute(home, named).await;
        assert_eq!(scene.found(&store).await, Some((FaultKind::BadSignature, 3)));
        assert_eq!(scene.published(&store), 2);
        execute(home, "delete from seals where block = 3").await;
        trouble(&store, false).await;
        sealed_to(&store, 3).await;
        assert_eq!(kinds(&check(&store, &scene.key, scene.outside.path()).await), []);
        store.close().await;
    }

    async fn a_key_that_another_server_took_up_a_moment_earlier_is_asked_for_again(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        store.close().await;
        let (old, new) = (scene.key.clone(), new_key());
        let store = home.open().await;
        let earlier = vec![old.verifying_key()];
        let sealing = sealing(&new, scene.outside.path());
        store.seal_with(Sealing { earlier: earlier.clone(), server: "two".to_owned(), ..sealing.clone() }).unwrap();
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        store.close().await;
        let store = home.open().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |times: usize| match times {
            0 => (old.clone(), vec![]),
            _ => (new.clone(), earlier.clone()),
        };
        let renewed = {
            let asked = asked.clone();
            move || std::future::ready(Ok(answer(asked.fetch_add(1, Ordering::SeqCst)))).boxed()
        };
        store.seal_with(Sealing { key: scene.key.clone(), renewed: Some(Arc::new(renewed)), ..sealing }).unwrap();
        sealed_to(&store, 3).await;
        assert_eq!((store.seal_state().unwrap().trouble, asked.load(Ordering::SeqCst)), (None, 2));
        store.append(one("a", Expected::At(3))).await.unwrap();
        sealed_to(&store, 4).await;
        assert_eq!(trouble(&store, false).await, "");
        store.close().await;
    }

    async fn a_key_between_two_others_is_known_where_the_last_one_vouches_for_it(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        store.close().await;
        let newest = new_key();
        let begin = async || {
            let store = home.open().await;
            store.seal_with(sealing(&newest, scene.outside.path())).unwrap();
            store
        };
        let store = begin().await;
        assert!(trouble(&store, true).await.contains("a key not known"));
        store.close().await;
        // Another server has, which saw it being replaced.
        scene.heads().vouch(&newest, &[scene.key.verifying_key()]).unwrap();
        let store = begin().await;
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        assert_eq!(trouble(&store, false).await, "");
        assert_eq!(kinds(&check(&store, &newest, scene.outside.path()).await), []);
        store.close().await;
    }

    async fn a_block_that_was_changed_before_its_head_was_published_is_not_signed_for(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let heads = outside.path().join("heads");
        std::fs::write(&heads, "a file").unwrap();
        let store = home.open().await;
        store.seal_with(sealing(&key, &heads)).unwrap();
        for n in 0..3 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
        }
        execute(home, "update seals set sealed_at = sealed_at + 1 where block = 2").await;
        std::fs::remove_file(&heads).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !trouble(&store, true).await.contains("at position 2") {
            assert!(std::time::Instant::now() < deadline, "{:?}", store.seal_state());
            tokio::task::yield_now().await;
        }
        assert_eq!(HeadsDir::new(&heads).latest(store.incarnation()).unwrap(), None);
        execute(home, "update seals set sealed_at = sealed_at - 1 where block = 2").await;
        trouble(&store, false).await;
        let report = check(&store, &key, &heads).await;
        assert_eq!((kinds(&report), report.heads), (vec![], 3));
        store.close().await;
    }

    async fn a_log_that_ends_before_its_last_block_is_not_gone_on_with(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        store.close().await;
        without_triggers(home, "delete from events where position = 2").await;
        let store = scene.serve(home).await;
        assert!(trouble(&store, true).await.contains("block 2 ends at 2, and the log itself at 1"));
        assert_eq!(scene.found(&store).await, Some((FaultKind::Removed, 2)));
        store.close().await;
    }

    async fn one_word_is_enough_where_the_block_was_made_in_a_life_that_nobody_had_signed_for(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        let from = store.incarnation();
        store.close().await;
        // As `backup restore` without the master key leaves it, and a stranger's key seals it.
        let named = "delete from published; \
            update meta set value = '00000000000040008000000000000009' where key = 'incarnation'";
        execute(home, named).await;
        let store = home.open().await;
        let incarnation = store.incarnation();
        let stranger = sealing(&new_key(), scene.outside.path());
        let earlier = vec![scene.key.verifying_key()];
        store.seal_with(Sealing { heads: None, earlier, ..stranger }).unwrap();
        store.append(one("log", Expected::At(0))).await.unwrap();
        sealed_to(&store, 3).await;
        store.close().await;
        let store = home.open().await;
        let began = Some(Began { incarnation, from, position: 2 });
        let heads = scene.outside.path();
        let life = restored(&store, &scene.key, heads, "a wrong key", began, true).await.unwrap();
        assert_eq!((life.from, life.position, life.block), (incarnation, 3, 3));
        let lives = std::fs::read_dir(heads.join("lives")).unwrap();
        for file in lives.map(|file| file.unwrap().path()) {
            let said = std::fs::read_to_string(&file).unwrap();
            assert!(!said.contains("never sealed"), "{said}");
        }
        store.close().await;
        let store = scene.serve(home).await;
        assert_eq!(scene.found(&store).await, None);
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 4).await;
        assert_eq!(trouble(&store, false).await, "");
        store.close().await;
    }

    async fn a_block_of_another_life_is_not_gone_on_with_once_this_one_has_begun(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        let life = store.incarnation().simple().to_string();
        store.close().await;
        // A copy of the log is served elsewhere with the same key, and its block put in here.
        let named = |life: &str| format!("update meta set value = '{life}' where key = 'incarnation'");
        execute(home, &format!("{}; delete from published", named("0000000000004000800000000000000a"))).await;
        let copy = home.open().await;
        copy.seal_with(Sealing { heads: None, ..sealing(&scene.key, scene.outside.path()) }).unwrap();
        copy.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&copy, 3).await;
        copy.close().await;
        execute(home, &named(&life)).await;
        let store = scene.serve(home).await;
        assert!(trouble(&store, true).await.contains("was made in another life of the log"));
        assert_eq!(scene.found(&store).await, Some((FaultKind::BrokenBlock, 3)));
        execute(home, "delete from seals where block = 3").await;
        trouble(&store, false).await;
        sealed_to(&store, 3).await;
        assert_eq!(kinds(&check(&store, &scene.key, scene.outside.path()).await), []);
        store.close().await;
    }

    async fn a_damaged_block_is_gone_on_from_where_somebody_with_the_key_has_accepted_it(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        store.close().await;
        execute(home, "update seals set key_id = '00' where block = 2").await;
        let store = home.open().await;
        restored(&store, &scene.key, scene.outside.path(), "a bad disk", None, true).await.unwrap();
        store.close().await;
        let store = scene.serve(home).await;
        assert_eq!(scene.found(&store).await, None);
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        assert_eq!(trouble(&store, false).await, "");
        let report = check(&store, &scene.key, scene.outside.path()).await;
        assert_eq!(report.first_break.map(|fault| (fault.kind, fault.position)), Some((FaultKind::UnknownKey, 2)));
        assert_eq!(report.lives.last().unwrap().published_to, 3);
        store.close().await;
    }
}
