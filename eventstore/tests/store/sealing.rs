//! What is sealed and published, by whom, and what a restored backup looks like; that each kind of
//! tampering is found is shown with the program's own command, in the crate `tests`.

use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_eventstore::{
    Append, Began, Error, Expected, FaultKind, HeadsDir, Life, Restore, Sealing, Store, Trusted,
    VerifyReport, record_restore, sqlite_file, verify,
};
use tempfile::TempDir;

use crate::support::{Home, append, one, to_stream};
use crate::{figures, on_both_stores};

pub fn new_key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

pub fn sealing(key: &SigningKey, heads: &Path) -> Sealing {
    Sealing {
        key: key.clone(),
        earlier: vec![],
        destroyed: vec![],
        renewed: None,
        heads: Some(heads.to_owned()),
        elsewhere: None,
        server: "one".to_owned(),
        every: Duration::from_millis(50),
    }
}

pub async fn execute(home: &Home, sql: &str) {
    if home.is_sqlite() {
        let connection = rusqlite::Connection::open(sqlite_file(home.dir())).unwrap();
        connection.execute_batch(sql).unwrap();
    } else {
        let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    }
}

/// What somebody with every right on the database can do: no trigger is in the way.
pub async fn without_triggers(home: &Home, sql: &str) {
    let off = if home.is_sqlite() {
        "drop trigger if exists events_are_never_changed; \
         drop trigger if exists events_are_never_deleted;"
    } else {
        "alter table events disable trigger all;"
    };
    execute(home, &format!("{off} {sql}")).await;
}

pub async fn sealed_to(store: &Store, position: u64) {
    let begun = Instant::now();
    while store.seal_state().unwrap().sealed_to < position {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", store.seal_state());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn check(store: &Store, key: &SigningKey, heads: &Path) -> VerifyReport {
    let trusted = Trusted::new([key.verifying_key()]);
    verify(store, &trusted, Some(HeadsDir::new(heads)), |_| {}).await.unwrap()
}

/// Signs for a restore, as a person with the key does.
pub async fn restored(
    store: &Store,
    key: &SigningKey,
    heads: &Path,
    note: &str,
    began: Option<Began>,
    accept: bool,
) -> Result<Life, Error> {
    let trusted = Trusted::new([key.verifying_key()]);
    let (note, key, heads) = (note.to_owned(), key.clone(), HeadsDir::new(heads));
    record_restore(store, Restore { key, trusted, heads, note, began, accept }).await
}

pub fn kinds(report: &VerifyReport) -> Vec<(FaultKind, u64)> {
    report.faults.iter().map(|fault| (fault.kind, fault.position)).collect()
}

on_both_stores! {
    async fn what_is_stored_is_sealed_within_a_second_and_published(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let sealing = Sealing { every: Sealing::EVERY, ..sealing(&key, outside.path()) };
        let store = home.open().await;
        store.seal_with(sealing.clone()).unwrap();
        assert!(store.seal_with(sealing.clone()).is_err(), "switched on twice");
        let mut lags = Vec::new();
        for n in 0..3 {
            let streams = vec![to_stream("a", Expected::At(n * 1_200), 1_200)];
            store.append(Append { streams, ..append() }).await.unwrap();
            let begun = Instant::now();
            sealed_to(&store, (n + 1) * 1_200).await;
            lags.push(begun.elapsed());
        }
        let lag = lags.iter().max().unwrap();
        store.close().await;
        let store = home.open().await;
        store.seal_with(sealing).unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        sealed_to(&store, 3_601).await;
        let dir = HeadsDir::new(outside.path());
        let head = dir.latest(store.incarnation()).unwrap().unwrap();
        assert_eq!(head.statement.position, 3_601);
        let report = check(&store, &key, outside.path()).await;
        figures!(home, "3,600 events in 3 appends, each sealed and published {lag:?} later at most");
        assert!(*lag < Duration::from_secs(1), "{lags:?}");
        assert_eq!(kinds(&report), []);
        assert_eq!((report.events, report.sealed_to, report.heads), (3_601, 3_601, 7), "each block has a head");
    }

    async fn a_chain_that_was_cut_is_not_extended(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        store.close().await;
        execute(home, "delete from seals").await;
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        store.clone().close().await;
        assert!(store.seal_state().unwrap().trouble.unwrap().contains("audit verify"));
        let store = Store::open_read_only(home.options()).await.unwrap();
        assert_eq!(store.last_seal().await.unwrap(), None);
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::Cut, 1)]);
    }

    async fn a_head_that_was_half_written_when_the_power_failed_is_no_head(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        store.close().await;
        let folder = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_str().unwrap().parse::<uuid::Uuid>().is_ok()).unwrap();
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        store.close().await;
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "the next head has a file of its own");
        let store = home.open().await;
        let report = check(&store, &key, outside.path()).await;
        assert_eq!((kinds(&report), report.heads), (vec![], 2));
        // A file system may leave it with zeros at its end instead, as many as it likes.
        for length in [300, 4_096, 6_000, 8_192] {
            std::fs::write(&file, [&whole[..], &vec![0; length][..]].concat()).unwrap();
            let report = check(&store, &key, outside.path()).await;
            assert_eq!((kinds(&report), report.heads), (vec![], 2), "{length} zeros");
        }
        // A line that ends and is no head is another thing.
        std::fs::write(&file, [&whole[..], b"{}\n"].concat()).unwrap();
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::ForgedHead, 2)]);
        // Signed by somebody else: for a block that is there, and for one beyond the end.
        for (replaced, by) in [(vec!["\"hash\":\""], "\"hash\":\"00"), (vec!["\"block\":1"], "\"block\":9")] {
            let text = String::from_utf8(whole.clone()).unwrap();
            let forged = replaced.iter().fold(text, |text, part| text.replace(part, by));
            std::fs::write(&file, forged).unwrap();
            let found = kinds(&check(&store, &key, outside.path()).await);
            assert_eq!(found, [(FaultKind::ForgedHead, 1), (FaultKind::NoHeads, 1)], "and the real one is gone");
        }
    }

    async fn a_key_that_was_replaced_is_trusted_through_the_one_that_speaks_for_it(home: &Home) {
        let (old, new, outside) = (new_key(), new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&old, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        store.close().await;
        let store = home.open().await;
        let turned = Sealing { earlier: vec![old.verifying_key()], ..sealing(&new, outside.path()) };
        store.seal_with(turned).unwrap();
        store.append(one("a", Expected::At(1))).await.unwrap();
        store.close().await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &new, outside.path()).await), []);
        // Who only knows the old key, or a stranger's, trusts no more than that.
        assert_eq!(kinds(&check(&store, &old, outside.path()).await), [(FaultKind::UnknownKey, 2)]);
        let stranger = kinds(&check(&store, &new_key(), outside.path()).await);
        assert_eq!(stranger, [(FaultKind::UnknownKey, 1), (FaultKind::UnknownKey, 2)]);
    }

    async fn a_restored_backup_is_a_new_life_and_hides_nothing(home: &Home) {
        let (key, outside) = (new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(Append { streams: vec![to_stream("a", Expected::At(0), 40)], ..append() }).await.unwrap();
        sealed_to(&store, 40).await;
        store.append(Append { streams: vec![to_stream("a", Expected::At(40), 10)], ..append() }).await.unwrap();
        store.close().await;
        // The backup was taken at 40.
        let back = "delete from events where position > 40; delete from seals where last_position > 40;";
        without_triggers(home, back).await;
        let store = home.open().await;
        let unsaid = check(&store, &key, outside.path()).await;
        assert_eq!(kinds(&unsaid), [(FaultKind::Cut, 41)], "a backup put back without a word");
        let life = restored(&store, &key, outside.path(), "a test", None, false).await.unwrap();
        assert_eq!((life.position, life.block), (40, 1));
        // This process still lives in the former life, and must not seal in its name.
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        store.clone().close().await;
        assert!(store.seal_state().unwrap().trouble.is_some());
        let store = home.open().await;
        assert_eq!(store.incarnation(), life.incarnation);
        store.seal_with(sealing(&key, outside.path())).unwrap();
        sealed_to(&store, 41).await;
        let said = check(&store, &key, outside.path()).await;
        figures!(home, "a restored backup: {} breaks, {} lives, {} events left behind", said.breaks, said.lives.len(), said.lives[0].left_behind);
        assert_eq!(kinds(&said), []);
        let lives: Vec<_> = said.lives.iter().map(|l| (l.last_position, l.published_to, l.left_behind, l.restored)).collect();
        assert_eq!(lives, [(40, 50, 10, true), (41, 41, 0, false)]);
        store.close().await;

        // What is done to the log before or after it is found as ever.
        without_triggers(home, "update events set recorded_at = recorded_at + 1 where position = 7").await;
        let store = home.open().await;
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), [(FaultKind::Changed, 7)]);
        store.close().await;
        without_triggers(home, "update events set recorded_at = recorded_at - 1 where position = 7").await;
        // Another life that nobody signed, which would hide a tail that was cut.
        execute(home, "update meta set value = '00000000000040008000000000000001' where key = 'incarnation'").await;
        without_triggers(home, "delete from events where position > 40; delete from seals where last_position > 40").await;
        let store = home.open().await;
        let hidden = check(&store, &key, outside.path()).await;
        assert_eq!(hidden.first_break.as_ref().map(|f| (f.kind, f.position)), Some((FaultKind::UnknownLife, 1)), "{hidden:?}");
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        sealed_to(&store, 41).await;
        assert!(!check(&store, &key, outside.path()).await.clean, "sealed on, it is clean again");
        store.close().await;
        // Whoever restores may give the new life its name, and have it signed afterwards.
        without_triggers(home, "delete from events where position > 40; delete from seals where last_position > 40; update meta set value = '00000000000040008000000000000002' where key = 'incarnation'").await;
        let store = home.open().await;
        let named = restored(&store, &key, outside.path(), "named before", None, false).await.unwrap();
        assert_eq!((named.incarnation, named.block), (store.incarnation(), 1));
        assert_eq!(kinds(&check(&store, &key, outside.path()).await), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_seal_one_log_in_turns() {
    let home = Home::postgres().await;
    let (key, heads) = (new_key(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let stores = [home.open().await, home.open().await];
    for (store, dir) in stores.iter().zip(&heads) {
        store
            .seal_with(Sealing { every: Duration::from_millis(5), ..sealing(&key, dir.path()) })
            .unwrap();
    }
    for n in 0..200 {
        stores[n % 2].append(one(&format!("s{n}"), Expected::At(0))).await.unwrap();
    }
    for store in &stores {
        sealed_to(store, 200).await;
    }
    for dir in &heads {
        let report = check(&stores[0], &key, dir.path()).await;
        figures!(
            home,
            "two servers sealed 200 events in {} blocks, {} heads",
            report.blocks,
            report.heads
        );
        assert_eq!((kinds(&report), report.events), (vec![], 200));
        assert_eq!(report.lives[0].published_to, 200);
    }
}
