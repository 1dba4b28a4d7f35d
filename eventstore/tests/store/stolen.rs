//! What somebody can do who holds a key that was destroyed, and may add to the heads: be found.

use ed25519_dalek::SigningKey;
use proximity_eventstore::{
    Expected, FaultKind, Head, HeadsDir, Life, Sealing, Signed, Statement, Store, Trusted,
    VerifyReport, verify,
};
use serde::Serialize;
use std::path::Path;
use tempfile::TempDir;

use crate::on_both_stores;
use crate::sealing::{check, kinds, new_key, restored, sealed_to, sealing};
use crate::support::{Home, one};

struct Scene {
    old: SigningKey,
    new: SigningKey,
    outside: TempDir,
}

impl Scene {
    /// A first event under the old key, a second one under the new key, and the old one's end.
    async fn begun(home: &Home) -> (Self, Store) {
        let this = Self { old: new_key(), new: new_key(), outside: TempDir::new().unwrap() };
        let store = home.open().await;
        store.seal_with(sealing(&this.old, this.outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        store.close().await;
        let store = home.open().await;
        let earlier = vec![this.old.verifying_key()];
        store.seal_with(Sealing { earlier, ..sealing(&this.new, this.outside.path()) }).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        sealed_to(&store, 2).await;
        (this, store)
    }

    async fn look(&self, store: &Store) -> VerifyReport {
        let trusted = Trusted::new([self.new.verifying_key()]);
        let trusted = trusted.and_destroyed(self.old.verifying_key(), Some(2));
        verify(store, &trusted, Some(HeadsDir::new(self.outside.path())), |_| {}).await.unwrap()
    }
}

fn put<T: Statement + Serialize>(file: &Path, statement: T, key: &SigningKey) {
    let line = serde_json::to_string(&Signed::new(statement, key).unwrap()).unwrap() + "\n";
    std::fs::write(file, line).unwrap();
}

on_both_stores! {
    async fn a_head_of_a_destroyed_key_tells_nothing_behind_its_end(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        assert_eq!(kinds(&scene.look(&store).await), []);
        let life = store.incarnation();
        let file = scene.outside.path().join(life.to_string()).join("99999999999999999999-x.heads");
        // Beyond the log's end, in place of the last block, and one that there was no time for.
        for (block, position) in [(5, 5), (2, 2), (7, 1)] {
            let head = Head { incarnation: life, block, position, hash: "00".repeat(32), sealed_at: 1 };
            put(&file, head, &scene.old);
            let report = scene.look(&store).await;
            let found: Vec<FaultKind> = report.faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(found, [FaultKind::ForgedHead], "block {block} at {position}");
            assert_eq!(report.lives[0].published_to, 2);
        }
        // In place of a block of its own time nothing tells it from the real one.
        let head = Head { incarnation: life, block: 1, position: 1, hash: "00".repeat(32), sealed_at: 1 };
        put(&file, head, &scene.old);
        assert_eq!(kinds(&scene.look(&store).await), [(FaultKind::Rewritten, 1)]);
        store.close().await;
    }

    async fn a_head_of_a_destroyed_key_keeps_nobody_from_sealing(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        let life = store.incarnation();
        store.close().await;
        let head = Head { incarnation: life, block: 9, position: 9, hash: "00".repeat(32), sealed_at: 1 };
        let file = scene.outside.path().join(life.to_string()).join("99999999999999999999-x.heads");
        put(&file, head, &scene.old);
        let store = home.open().await;
        let (earlier, destroyed) = (vec![scene.old.verifying_key()], vec![scene.old.verifying_key()]);
        let sealing = sealing(&scene.new, scene.outside.path());
        store.seal_with(Sealing { earlier, destroyed, ..sealing }).unwrap();
        store.append(one("a", Expected::At(2))).await.unwrap();
        sealed_to(&store, 3).await;
        store.close().await;
        let store = home.open().await;
        let report = scene.look(&store).await;
        assert_eq!(kinds(&report), [(FaultKind::ForgedHead, 4)]);
        assert_eq!(report.lives[0].published_to, 3);
        store.close().await;
    }

    async fn what_a_living_key_said_of_a_restore_stands(home: &Home) {
        let (scene, store) = Scene::begun(home).await;
        let life = restored(&store, &scene.new, scene.outside.path(), "by us", None, false).await;
        let life = life.unwrap();
        store.close().await;
        let store = home.open().await;
        assert_eq!(kinds(&scene.look(&store).await), []);
        let other = Life {
            note: "by somebody".to_owned(), began_at: life.began_at + 1, position: 1, block: 1, ..life.clone()
        };
        let lives = scene.outside.path().join("lives");
        put(&lives.join(format!("{}-x.json", life.incarnation)), other, &scene.old);
        let report = scene.look(&store).await;
        assert_eq!(kinds(&report), []);
        assert_eq!(report.lives.last().unwrap().note.as_deref(), Some("restored: by us"));
        store.close().await;
    }

    async fn a_restore_that_was_signed_by_a_key_before_its_end_counts_in_a_log_from_before_that(home: &Home) {
        let (old, new, outside) = (new_key(), new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&old, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        store.close().await;
        let store = home.open().await;
        let life = restored(&store, &old, outside.path(), "by us", None, false).await.unwrap();
        store.close().await;
        // The log is a backup from between the rotation and the destruction, so that it does not know of it.
        let trusted = Trusted::new([new.verifying_key()]).and_destroyed(old.verifying_key(), None);
        let look = async || {
            let store = home.open().await;
            let report = verify(&store, &trusted, Some(HeadsDir::new(outside.path())), |_| {}).await;
            store.close().await;
            kinds(&report.unwrap())
        };
        assert_eq!(look().await, [(FaultKind::UnknownLife, 2)], "nothing tells that it is from before");
        let store = home.open().await;
        store.seal_with(Sealing { earlier: vec![old.verifying_key()], ..sealing(&new, outside.path()) }).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        store.close().await;
        assert_eq!(look().await, [], "a living key went on in the life");
        // What somebody says of the same life who has the key now does not take its place.
        let lives = outside.path().join("lives");
        let forged = lives.join(format!("{}-x.json", life.incarnation));
        put(&forged, Life { began_at: 1, note: "by somebody".to_owned(), ..life }, &old);
        assert_eq!(look().await, [(FaultKind::UnknownLife, 2)]);
        std::fs::remove_file(&forged).unwrap();
        assert_eq!(look().await, []);
        // Nor does it begin another life: then nothing says how this one and the one before hang together.
        let unknown = [2, 3].map(|at| (FaultKind::UnknownLife, at));
        let store = home.open().await;
        restored(&store, &old, outside.path(), "forged", None, true).await.unwrap();
        store.close().await;
        assert_eq!(look().await, unknown);
        let store = home.open().await;
        store.seal_with(sealing(&old, outside.path())).unwrap();
        store.append(one("a", Expected::At(2))).await.unwrap();
        store.close().await;
        assert_eq!(look().await, unknown);
    }

    async fn a_head_with_a_damaged_signature_is_found_at_the_end_of_its_file(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        for n in 0..3 {
            store.append(one("a", Expected::At(n))).await.unwrap();
            sealed_to(&store, n + 1).await;
        }
        store.close().await;
        let store = home.open().await;
        let folder = outside.path().join(store.incarnation().to_string());
        let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let at = text.rfind("\"signature\":\"").unwrap() + 13;
        let digit = if text[at..].starts_with('0') { "1" } else { "0" };
        std::fs::write(&file, format!("{}{digit}{}", &text[..at], &text[at + 1..])).unwrap();
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::ForgedHead, 3)]);
        store.close().await;
    }
}
