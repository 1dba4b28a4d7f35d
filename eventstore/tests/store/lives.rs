//! A restore is signed for what it is, and hides nothing; heads that are gone are missed.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proximity_eventstore::{
    Append, Began, Error, Expected, FaultKind, HeadsDir, Life, Sealing, Signed, Store, Trusted,
    verify,
};
use tempfile::TempDir;

use crate::on_both_stores;
use crate::sealing::{
    check, execute, kinds, new_key, restored, sealed_to, sealing, without_triggers,
};
use crate::support::{Home, append, one, to_stream};

/// The first break for which a restore is refused.
fn refused(result: Result<Life, Error>) -> (FaultKind, u64) {
    match result {
        Err(Error::NotAsSealed { first, .. }) => (first.kind, first.position),
        other => panic!("{other:?}"),
    }
}

/// A store whose life has 20 events and published heads of all of them.
async fn lived(home: &Home, key: &SigningKey, outside: &Path) -> Store {
    let store = home.open().await;
    store.seal_with(sealing(key, outside)).unwrap();
    let streams = vec![to_stream("a", Expected::At(0), 20)];
    store.append(Append { streams, ..append() }).await.unwrap();
    sealed_to(&store, 20).await;
    store
}

on_both_stores! {
    async fn a_restore_is_not_signed_for_a_log_that_was_changed(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        for n in 0..4 {
            store.append(Append { streams: vec![to_stream("a", Expected::At(n * 10), 10)], ..append() }).await.unwrap();
            sealed_to(&store, (n + 1) * 10).await;
        }
        let life = store.incarnation();
        store.close().await;
        let change = "update events set recorded_at = recorded_at + 1 where position = 25;";
        let mend = "update events set recorded_at = recorded_at - 1 where position = 25;";
        without_triggers(home, change).await;
        let store = home.open().await;
        let signed = restored(&store, &key, outside.path(), "x", None, false).await;
        assert_eq!(refused(signed), (FaultKind::Changed, 25), "the seals are there");
        for gone in [" where last_position > 20", ""] {
            execute(home, &format!("delete from seals{gone}")).await;
            let signed = restored(&store, &key, outside.path(), "x", None, false).await;
            assert_eq!(refused(signed), (FaultKind::Rewritten, 21), "seals are gone{gone}");
        }
        store.close().await;
        // Another incarnation, which nobody signed for, is no way around.
        execute(home, "update meta set value = '00000000000040008000000000000003' where key = 'incarnation'").await;
        let other = home.open().await;
        let unknown = restored(&other, &key, outside.path(), "x", None, false).await;
        assert_eq!(refused(unknown).0, FaultKind::UnknownLife);
        let began = Began { incarnation: other.incarnation(), from: life, position: 40 };
        let said = restored(&other, &key, outside.path(), "x", Some(began), false).await;
        assert_eq!(refused(said), (FaultKind::Rewritten, 21));
        // Who accepts it is told for ever.
        let accepted = restored(&other, &key, outside.path(), "we know", Some(began), true).await.unwrap();
        assert_eq!(accepted.incarnation, other.incarnation());
        other.close().await;
        without_triggers(home, mend).await;
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 40).await;
        let report = check(&store, &key, outside.path()).await;
        let expected = [(FaultKind::Changed, 1), (FaultKind::Rewritten, 21)];
        assert_eq!(kinds(&report), expected, "mended, it is not what was signed for: {report:?}");
        assert!(report.faults.iter().all(|fault| fault.detail.contains("we know")));
    }

    async fn a_statement_says_exactly_where_its_life_begins(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        store.append(Append { streams: vec![to_stream("a", Expected::At(20), 10)], ..append() }).await.unwrap();
        sealed_to(&store, 30).await;
        let from = store.incarnation();
        store.append(Append { streams: vec![to_stream("a", Expected::At(30), 10)], ..append() }).await.unwrap();
        store.close().await;
        // A backup of 34 events, of which the first 20 were sealed: the old life published up to 40.
        let back = "delete from events where position > 34; delete from seals where last_position > 20; \
            update meta set value = '00000000000040008000000000000004' where key = 'incarnation'";
        without_triggers(home, back).await;
        let store = home.open().await;
        store.append(one("log", Expected::At(0))).await.unwrap();
        let began = Some(Began { incarnation: store.incarnation(), from, position: 34 });
        let life = restored(&store, &key, outside.path(), "a drill", began, false).await.unwrap();
        assert_eq!((life.position, life.block, life.from), (34, 1, from));
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&report), report.lives[0].left_behind), (vec![], 6), "{report:?}");
        assert_eq!(report.lives[1].note.as_deref(), Some("restored: a drill"));
        store.close().await;
        // Nothing is sealed in the new life yet: the end of the old one, published or not, is proven.
        for (position, expected) in [(25, (FaultKind::Rewritten, 21)), (33, (FaultKind::Changed, 21)), (7, (FaultKind::Changed, 7))] {
            let bend = |by: &str| format!("update events set recorded_at = recorded_at {by} where position = {position}");
            without_triggers(home, &bend("+ 1")).await;
            let store = home.open().await;
            assert_eq!(kinds(&check(&store, &key, outside.path()).await), [expected], "{position}");
            store.close().await;
            without_triggers(home, &bend("- 1")).await;
        }
        // Without any seal left, each block of the old life is missed.
        without_triggers(home, "create table kept as select * from seals; delete from seals; update events set recorded_at = recorded_at + 1 where position = 7").await;
        let store = home.open().await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!(report.first_break.map(|fault| fault.position), Some(1));
        store.close().await;
        without_triggers(home, "insert into seals select * from kept; update events set recorded_at = recorded_at - 1 where position = 7").await;
        // A server goes on, and everything still fits.
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 35).await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&report), report.lives[0].left_behind), (vec![], 6), "{report:?}");
    }

    async fn a_life_that_was_served_before_anybody_signed_for_it_is_signed_for_later(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        let from = store.incarnation();
        store.close().await;
        execute(home, "update meta set value = '00000000000040008000000000000005' where key = 'incarnation'").await;
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("log", Expected::At(0))).await.unwrap();
        store.close().await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::UnknownLife, 21)]);
        let began = Some(Began { incarnation: store.incarnation(), from, position: 20 });
        let life = restored(&store, &key, outside.path(), "late", began, false).await.unwrap();
        assert_eq!((life.incarnation, life.position), (store.incarnation(), 20));
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
    }

    async fn heads_that_are_gone_are_missed_for_good(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let fill = async |n: u64| {
            let store = home.open().await;
            store.seal_with(sealing(&key, outside.path())).unwrap();
            for n in n..n + 4 {
                store.append(one("a", Expected::At(n))).await.unwrap();
                sealed_to(&store, n + 1).await;
            }
            let trouble = store.seal_state().unwrap().trouble;
            store.close().await;
            trouble
        };
        assert_eq!(fill(0).await, None);
        let store = home.open().await;
        let folder = outside.path().join(store.incarnation().to_string());
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        store.close().await;
        let whole = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let wants = async |what: &str, expected: &[(FaultKind, u64)]| {
            let store = home.open().await;
            let found = kinds(&check(&store, &key, outside.path()).await);
            store.close().await;
            assert_eq!(found, expected, "{what}");
        };
        for (what, kept, at) in [
            ("all", vec![], 1),
            ("the second half", lines[..2].to_vec(), 3),
            ("all but the last", lines[3..].to_vec(), 1),
            ("one in the middle", [&lines[..1], &lines[2..]].concat(), 2),
        ] {
            let text: String = kept.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&file, text).unwrap();
            wants(what, &[(FaultKind::NoHeads, at)]).await;
        }
        // A line that is none hides nothing, and is told itself; one that was cut short is none.
        std::fs::write(&file, format!("{whole}x\n")).unwrap();
        wants("a line", &[(FaultKind::ForgedHead, 5)]).await;
        std::fs::write(&file, format!("{whole}{{\"statem")).unwrap();
        wants("a torn line", &[]).await;
        std::fs::write(outside.path().join("keys/x.json"), "{").unwrap();
        wants("a stray file", &[(FaultKind::ForgedHead, 5)]).await;
        std::fs::remove_file(outside.path().join("keys/x.json")).unwrap();
        // A server that goes on does not make up for it: it seals, and publishes nothing where nothing is.
        std::fs::remove_dir_all(&folder).unwrap();
        let trouble = fill(4).await.unwrap();
        assert!(trouble.contains("is it mounted?"), "{trouble}");
        assert!(!folder.exists());
        wants("all, and gone on", &[(FaultKind::NoHeads, 1)]).await;
        // Where some of it is back, it goes on there.
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, format!("{}\n", lines[3])).unwrap();
        assert_eq!(fill(8).await, None);
        wants("the first ones", &[(FaultKind::NoHeads, 1)]).await;
        // Until somebody with the key says that they are lost.
        let store = home.open().await;
        let unsaid = restored(&store, &key, outside.path(), "lost", None, false).await;
        assert_eq!(refused(unsaid), (FaultKind::NoHeads, 1));
        restored(&store, &key, outside.path(), "the disk of the witness failed", None, true).await.unwrap();
        store.close().await;
        wants("said", &[]).await;
        assert_eq!(fill(12).await, None, "the new life has heads of its own");
        wants("said, and gone on", &[]).await;
        // And what the statement saw is missed again.
        std::fs::remove_dir_all(&folder).unwrap();
        wants("lost again", &[(FaultKind::NoHeads, 1)]).await;
    }

    async fn a_line_that_is_no_head_hides_no_life_that_was_put_away(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        let folder = outside.path().join(store.incarnation().to_string());
        store.close().await;
        let other = "update meta set value = '00000000000040008000000000000006' where key = 'incarnation'; delete from seals";
        execute(home, other).await;
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{whole}x\n")).unwrap();
        let store = home.open().await;
        let found = kinds(&check(&store, &key, outside.path()).await);
        assert_eq!(found, [(FaultKind::ForgedHead, 1), (FaultKind::UnknownLife, 1)]);
    }

    async fn a_chain_that_was_cut_is_not_extended_although_its_heads_are_hidden(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        let folder = outside.path().join(store.incarnation().to_string());
        store.close().await;
        execute(home, "delete from seals").await;
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read_to_string(&file).unwrap();
        for hidden in [format!("{whole}x\n"), String::new()] {
            std::fs::write(&file, hidden).unwrap();
            let store = home.open().await;
            store.seal_with(sealing(&key, outside.path())).unwrap();
            store.clone().close().await;
            assert!(store.seal_state().unwrap().trouble.unwrap().contains("audit verify"));
            let store = Store::open_read_only(home.options()).await.unwrap();
            assert_eq!(store.last_seal().await.unwrap(), None);
            let first = check(&store, &key, outside.path()).await.first_break.unwrap();
            assert_eq!((first.kind, first.position), (FaultKind::Cut, 1));
        }
    }

    async fn a_statement_of_a_restore_that_was_broken_off_does_not_hide_what_came_later(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        let first = store.incarnation();
        store.close().await;
        let store = home.open().await;
        let life = restored(&store, &key, outside.path(), "broken off", None, false).await.unwrap();
        store.close().await;
        // The statement is there, and nothing came of it: the log goes on.
        execute(home, &format!("update meta set value = '{first}' where key = 'incarnation'")).await;
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(Append { streams: vec![to_stream("b", Expected::At(0), 10)], ..append() }).await.unwrap();
        sealed_to(&store, 30).await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
        store.close().await;
        let back = format!(
            "delete from events where position > 20; delete from seals where last_position > 20; \
             delete from published; update meta set value = '{}' where key = 'incarnation'",
            life.incarnation
        );
        without_triggers(home, &back).await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::UnknownLife, 21)]);
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("c", Expected::At(0))).await.unwrap();
        sealed_to(&store, 21).await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::UnknownLife, 21)]);
    }

    async fn sealing_goes_on_behind_a_head_that_was_not_finished_and_one_that_nobody_signed(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        let folder = outside.path().join(store.incarnation().to_string());
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        store.close().await;
        // As a crash leaves it between the file and the database's note.
        let line = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &line[..100]).unwrap();
        execute(home, "delete from published").await;
        let go_on = async |n: u64| {
            let store = home.open().await;
            // Before the first round, which would publish the last block there is.
            store.append(one("b", Expected::At(n))).await.unwrap();
            store.seal_with(sealing(&key, outside.path())).unwrap();
            sealed_to(&store, 21 + n).await;
            let report = check(&store, &key, outside.path()).await;
            store.close().await;
            (kinds(&report), report.blocks - report.heads)
        };
        assert_eq!(go_on(0).await, (vec![], 1), "the head of the first block was never finished");
        // A line that anybody could have added names a block that there is not.
        let forged = line.replacen("\"block\":1,", "\"block\":9999,", 1);
        assert_ne!(forged, line);
        std::fs::write(folder.join("00000000000000000001-x.heads"), forged).unwrap();
        assert_eq!(go_on(1).await, (vec![(FaultKind::ForgedHead, 1)], 0), "the forged one was compared");
    }

    async fn a_key_that_was_destroyed_signs_for_no_new_life(home: &Home) {
        let (old, new, outside) = (new_key(), new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&old, outside.path())).unwrap();
        store.append(Append { streams: vec![to_stream("a", Expected::At(0), 20)], ..append() }).await.unwrap();
        store.close().await;
        let store = home.open().await;
        store.seal_with(Sealing { earlier: vec![old.verifying_key()], ..sealing(&new, outside.path()) }).unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        store.close().await;
        let trusted = Trusted::new([new.verifying_key()]).and_destroyed(old.verifying_key(), Some(21));
        let look = async || {
            let store = home.open().await;
            let report = verify(&store, &trusted, Some(HeadsDir::new(outside.path())), |_| {}).await;
            store.close().await;
            report.unwrap()
        };
        assert_eq!(kinds(&look().await), [], "what it sealed still counts");
        // Whoever has it now changes an event, and signs that this is a restored log.
        let change = "update events set recorded_at = recorded_at + 1 where position = 7; delete from seals";
        without_triggers(home, change).await;
        let store = home.open().await;
        restored(&store, &old, outside.path(), "forged", None, true).await.unwrap();
        store.close().await;
        let report = look().await;
        assert_eq!(report.first_break.map(|fault| fault.kind), Some(FaultKind::UnknownLife));
    }

    async fn a_key_that_was_destroyed_signs_no_later_block(home: &Home) {
        let (old, new, outside) = (new_key(), new_key(), TempDir::new().unwrap());
        for events in [20, 1] {
            let store = home.open().await;
            store.seal_with(sealing(&old, outside.path())).unwrap();
            let stream = to_stream(&format!("of {events}"), Expected::At(0), events);
            store.append(Append { streams: vec![stream], ..append() }).await.unwrap();
            store.close().await;
        }
        let store = home.open().await;
        let mut found = Vec::new();
        for destroyed in [22, 21, 1] {
            let trusted = Trusted::new([new.verifying_key()]);
            let trusted = trusted.and_destroyed(old.verifying_key(), Some(destroyed));
            let report = verify(&store, &trusted, Some(HeadsDir::new(outside.path())), |_| {}).await.unwrap();
            found.push(kinds(&report));
        }
        let bad = FaultKind::BadSignature;
        assert_eq!(found, [vec![], vec![(bad, 21)], vec![(bad, 1), (bad, 21)]]);
    }

    async fn a_statement_of_the_older_form_counts_for_what_it_says(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = lived(home, &key, outside.path()).await;
        let from = store.incarnation();
        let hash = HeadsDir::new(outside.path()).latest(from).unwrap().unwrap().statement.hash;
        store.close().await;
        execute(home, "update meta set value = '00000000000040008000000000000007' where key = 'incarnation'").await;
        let store = home.open().await;
        store.append(one("log", Expected::At(0))).await.unwrap();
        let incarnation = store.incarnation();
        let text = |hash: &str| format!(
            "{{\"incarnation\":\"{incarnation}\",\"from\":\"{from}\",\"position\":21,\"block\":1,\"hash\":\"{hash}\",\
             \"left\":[],\"began_at\":1,\"note\":\"old\"}}"
        );
        let life: Life = serde_json::from_str(&text(&hash)).unwrap();
        assert_eq!(serde_json::to_string(&life).unwrap(), text(&hash), "its signature is over the same bytes");
        let signed = Signed::new(life, &key).unwrap();
        let file = outside.path().join("lives").join(format!("{incarnation}.json"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, serde_json::to_vec(&signed).unwrap()).unwrap();
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&report), report.lives[0].left_behind), (vec![], 0), "{report:?}");
        assert!(report.lives[1].note.as_ref().unwrap().contains("older form"));
        store.close().await;
        // All that it names has to be there, also when the life is the first of the chain.
        execute(home, "delete from seals").await;
        let store = home.open().await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!(report.first_break.map(|fault| fault.position), Some(1));
    }
}
