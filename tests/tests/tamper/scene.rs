//! A sealed log to tamper with, what somebody with every right does to it, and the command that looks.

use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_commands::keys::KeyFile;
use proximity_eventstore::{
    Append, Expected, Lane, NewEvent, Options, Sealing, Store, StreamAppend, sqlite_file,
};
use proximity_server::app::sealing::SigningKeys;
use proximity_tests::database::Kind;
use proximity_tests::process::Site;
use serde_json::Value;
use sqlx::Connection as _;

/// Events of each append that the scene is filled with, and how many appends: each a block of its own.
pub const EACH: u64 = 25;
pub const APPENDS: u64 = 12;

/// A sealed log, and the same log as it was a while before.
pub struct Scene {
    pub site: Site,
    pub older: Site,
    pub key: SigningKey,
    /// Where each block begins, and the last position.
    pub blocks: Vec<u64>,
    pub head: u64,
    pub folder: tempfile::TempDir,
}

pub fn options(site: &Site) -> Options {
    site.database_url().map_or_else(|| Options::sqlite(&site.data), Options::postgres)
}

/// Seals with this key until everything is sealed, also behind blocks of the site's own key.
pub async fn seal(
    site: &Site,
    key: &SigningKey,
    heads: &Path,
    appends: std::ops::Range<u64>,
) -> Vec<u64> {
    let own = SigningKeys::derive(&KeyFile::locate(&site.data, |_| None).read().unwrap()).current;
    let store = Store::open(options(site)).await.unwrap();
    let sealing = Sealing {
        key: key.clone(),
        earlier: vec![own.verifying_key()],
        destroyed: vec![],
        renewed: None,
        heads: Some(heads.to_owned()),
        elsewhere: None,
        server: "test".to_owned(),
        every: Duration::from_millis(10),
    };
    store.seal_with(sealing).unwrap();
    for number in appends {
        store.append(append(number)).await.unwrap();
        let head = store.head().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.seal_state().unwrap().sealed_to < head {
            assert!(Instant::now() < deadline, "{:?}", store.seal_state());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    store.clone().close().await;
    let store = Store::open_read_only(options(site)).await.unwrap();
    let seals = store.seals(0, 1_000).await.unwrap();
    store.close().await;
    seals.iter().map(|seal| seal.first).collect()
}

pub fn append(number: u64) -> Append {
    // A kind that servers know, of a stream that none follows.
    let event = |n: u64| NewEvent {
        event_type: "lease.cleared".to_owned(),
        event_version: "1".to_owned(),
        payload: format!("{{\"n\": {n}, \"text\": \"an event like others\"}}"),
    };
    Append {
        id: uuid::Uuid::now_v7(),
        lane: Lane::User("test".to_owned()),
        streams: vec![StreamAppend {
            metadata: None,
            aggregate_type: "thing".to_owned(),
            aggregate_id: format!("t{number}"),
            expected: Expected::At(0),
            events: (0..EACH).map(event).collect(),
        }],
        assertions: Vec::new(),
        side: Vec::new(),
        metadata: "{\"actor\":\"user/1\",\"request_id\":\"r\"}".to_owned(),
        fence: None,
        idempotency: None,
    }
}

impl Scene {
    pub async fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("site");
        std::fs::create_dir(&data).unwrap();
        let site = Site::new(kind, &data).await;
        if kind == Kind::Postgres {
            site.run(&["migrate"]);
        }
        // A server makes the keys, and seals what it writes.
        let server = site.serve().await;
        site.run(&["user", "add", "ann", "--admin"]);
        server.terminate();
        let file = KeyFile::locate(&data, |_| None);
        let key = SigningKeys::derive(&file.open(true).unwrap()).current;
        let heads = data.join("heads");
        seal(&site, &key, &heads, 0..APPENDS - 3).await;
        let older = site.copy(&folder.path().join("older")).await;
        let blocks = seal(&site, &key, &heads, APPENDS - 3..APPENDS).await;
        let store = Store::open_read_only(options(&site)).await.unwrap();
        let head = store.head().await.unwrap();
        store.close().await;
        Self { site, older, key, blocks, head, folder }
    }

    pub async fn copy(&self, name: &str) -> Site {
        self.site.copy(&self.folder.path().join(name.replace(' ', "-"))).await
    }
}

/// What somebody with every right on the database can do: no trigger or constraint is in the way.
pub async fn execute(site: &Site, sql: &str) {
    match site.database_url() {
        None => {
            let connection = rusqlite::Connection::open(sqlite_file(&site.data)).unwrap();
            let off = "pragma ignore_check_constraints = on; drop index events_pkey;
                drop trigger events_are_never_changed; drop trigger events_are_never_deleted;";
            connection.execute_batch(&format!("{off} {sql}")).unwrap();
            // As it was, so that a server would notice nothing.
            let on = "create index if not exists events_pkey on events (aggregate_type, aggregate_id, sequence);
                create trigger events_are_never_changed before update on events
                begin select raise(abort, 'events are never changed'); end;
                create trigger events_are_never_deleted before delete on events
                begin select raise(abort, 'events are never deleted'); end;";
            connection.execute_batch(on).unwrap();
        }
        Some(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            let off = "alter table events disable trigger all;
                alter table events drop constraint if exists events_pkey;
                alter table events drop constraint if exists events_position_key;
                alter table events drop constraint if exists events_position_check;
                alter table events drop constraint if exists events_sequence_check;
                create index if not exists events_pkey on events (aggregate_type, aggregate_id, sequence);
                create index if not exists events_position_key on events (position);";
            sqlx::raw_sql(&format!("{off} {sql}")).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

/// Exit code and report of the program's own command.
pub fn verify(site: &Site) -> (i32, Value) {
    let output = site.command(&["audit", "verify", "-o", "json"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{output:?}");
    });
    (output.status.code().unwrap(), report)
}
