//! The master key replaced for real: under `kill -9`, and while several servers go on.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_commands::dispatch::Unit;
use proximity_commands::keys::{KeyFile, Keyring, MasterKeys, Purpose};
use proximity_commands::secrets::{SecretOwner, Secrets, of_application};
use proximity_commands::{Actor, Secret};
use proximity_domain::SecretId;
use proximity_eventstore::{Head, Options, Signed, Store, Value, tables};
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use serde_json::{Value as Json, json};
use uuid::Uuid;

const SECRETS: usize = 400;
/// Kills of one test, at least.
const KILLS: usize = 10;
/// After so many, a rotation is left alone.
const MOST_KILLS: usize = 16;

fn owner(record: usize) -> SecretOwner {
    SecretOwner { table: "rotation", record: record.to_string(), column: "value".into() }
}

fn options(site: &Site) -> Options {
    match site.database_url() {
        Some(url) => Options::postgres(url),
        None => Options::sqlite(&site.data),
    }
}

fn keys(site: &Site) -> MasterKeys {
    KeyFile::Own(site.data.join("master.key")).read().unwrap()
}

/// Many secrets, so that a rotation takes long enough to be killed in its middle.
async fn fill(site: &Site) -> Vec<SecretId> {
    let owners: Vec<SecretOwner> = (0..SECRETS).map(owner).collect();
    store_secrets(site, &owners).await
}

/// One secret for each, `value 0` and so on.
async fn store_secrets(site: &Site, owners: &[SecretOwner]) -> Vec<SecretId> {
    let store = Store::open(options(site)).await.unwrap();
    let file = KeyFile::Own(site.data.join("master.key"));
    let ring = Keyring::new(file.clone(), file.open(false).unwrap(), false);
    let secrets = Secrets::new(store.clone(), ring).await.unwrap();
    let metadata = Actor::system("test").metadata("test.seal");
    let mut unit = Unit::outcome(&store, metadata, None);
    let mut ids = Vec::new();
    for (record, owner) in owners.iter().enumerate() {
        let (id, secret) = (SecretId(Uuid::new_v4()), Secret::new(format!("value {record}")));
        secrets.seal_into(&mut unit, id, owner, 1, &secret, 0).await.unwrap();
        ids.push(id);
    }
    unit.commit().await.unwrap();
    store.close().await;
    ids
}

/// Every secret opens with what is in the key file now; returns how many are under each key.
async fn opened(site: &Site, ids: &[SecretId]) -> usize {
    let store = Store::open_read_only(options(site)).await.unwrap();
    let ring: Keyring = std::sync::Arc::new(keys(site)).into();
    let secrets = Secrets::check(store.clone(), ring).await.unwrap();
    for (record, id) in ids.iter().enumerate() {
        let opened = secrets.unseal(*id, &owner(record)).await.unwrap();
        assert_eq!(opened.expose(), format!("value {record}"));
    }
    store.close().await;
    ids.len()
}

async fn under(site: &Site, key: &str) -> u64 {
    let store = Store::open_read_only(options(site)).await.unwrap();
    let filter = vec![("key_id", Value::Text(key.to_owned()))];
    let count = store.count(&tables::SECRETS, filter).await.unwrap();
    store.close().await;
    count
}

async fn a_rotation_survives_kills(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(kind, folder.path()).await;
    if kind == Kind::Postgres {
        site.run(&["migrate"]);
    }
    let ids = fill(&site).await;
    let (mut kills, mut middles, mut rotations) = (0, 0, 0);
    let mut delay = 10;
    // On a quick machine a rotation may end before it is killed: then there is another one.
    while rotations < 2 || kills < KILLS {
        let old = keys(&site).ids().last().unwrap().clone();
        let started = Instant::now();
        let mut child = site
            .command(&["keys", "rotate", "--grace", "0", "--destroy", "-o", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if started.elapsed() > Duration::from_millis(delay) {
                child.kill().unwrap();
                child.wait().unwrap();
                break false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(opened(&site, &ids).await, SECRETS);
        if ended {
            rotations += 1;
            let keys = keys(&site);
            assert_eq!(keys.ids().len(), 1, "the old keys were destroyed");
            assert_eq!(under(&site, keys.current_id()).await, SECRETS as u64);
            assert_eq!(under(&site, &old).await, 0);
            delay /= 2;
        } else {
            kills += 1;
            let left = under(&site, &old).await;
            let middle = left > 0 && left < SECRETS as u64;
            middles += usize::from(middle);
            // Small steps once it gets that far, and an end on a busy machine.
            delay = if kills > MOST_KILLS { 60_000 } else { delay + if middle { 15 } else { 40 } };
        }
    }
    figure!(
        "keys rotate, kill -9, {kind:?}: {kills} kills, {middles} of them with some of {SECRETS} secrets \
         resealed; {rotations} rotations finished, 0 secrets lost, 0 under an old key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_survives_kills_on_sqlite() {
    a_rotation_survives_kills(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_survives_kills_on_postgresql() {
    a_rotation_survives_kills(Kind::Postgres).await;
}

async fn deploys(client: &Client, hostname: &str) -> String {
    let environment = json!({ "TOKEN": format!("token of {hostname}") });
    let body = json!({ "catalog_id": "alpine", "hostname": hostname, "environment": environment });
    let answer = client.post("/api/apps/", body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// A new version of the host's credential: it is sealed, and opened for the next call.
async fn changes_credential(client: &Client, lab: &Lab) {
    let body = json!({ "password": lab.simulator.root_password() });
    let put = client.try_call(reqwest::Method::PUT, "/api/proxmox/hosts/1", Some(&body), &[]);
    let answer = put.await.unwrap();
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
}

fn generations(site: &Site) -> Vec<Json> {
    serde_json::from_str(&site.run(&["keys", "status", "-o", "json"])).unwrap()
}

async fn servers_go_on(kind: Kind) {
    let lab = Lab::new(kind, 1).await;
    let (server, client) = lab.start().await;
    let other = (kind == Kind::Postgres).then(|| lab.replica("b"));
    let (mut second, mut clients) = (None, vec![client.clone()]);
    if let Some(other) = &other {
        std::fs::copy(lab.site.data.join("master.key"), other.data.join("master.key")).unwrap();
        second = Some(other.serve().await);
        clients.push(client.at(&other.url()));
    }
    let old = keys(&lab.site).current_id().to_owned();
    let mut rotating = lab
        .site
        .command(&["keys", "rotate", "--grace", "3"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut calls = 0;
    let status = loop {
        for (n, client) in clients.iter().enumerate() {
            deploys(client, &format!("rotate-{n}-{calls}")).await;
            changes_credential(client, &lab).await;
        }
        calls += 1;
        if let Some(status) = rotating.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success());
    for (n, client) in clients.iter().enumerate() {
        deploys(client, &format!("after-{n}")).await;
        changes_credential(client, &lab).await;
    }
    lab.settle(&client, Duration::from_secs(60)).await;
    assert_eq!(under(&lab.site, &old).await, 0);
    let found = lab.check().await;
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    assert_eq!(found.live.len(), (calls + 1) * clients.len(), "every deployment runs");
    let states = generations(&lab.site);
    assert_eq!(states.len(), 2);
    assert_eq!(states[1]["generation"], old.as_str());
    assert_eq!((&states[1]["state"], &states[1]["secrets"]), (&json!("replaced"), &json!(0)));
    assert!(states[0]["sealing_since"].is_string() && states[1]["replaced_at"].is_string());
    lab.site.run(&["keys", "destroy", &old]);
    let sites: Vec<&Site> = std::iter::once(&lab.site).chain(other.as_ref()).collect();
    for site in &sites {
        let deadline = Instant::now() + Duration::from_secs(10);
        while keys(site).ids().contains(&old) {
            assert!(Instant::now() < deadline, "{} keeps the destroyed key", site.data.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(keys(site).retired_ids(), std::slice::from_ref(&old));
    }
    // Containers that were marked with the old key are ours still.
    let apps = client.get("/api/apps/").await.ok();
    let id = apps["apps"][0]["id"].as_str().unwrap().to_owned();
    let answer = client.delete(&format!("/api/apps/{id}")).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    lab.settle(&client, Duration::from_secs(30)).await;
    let found = lab.check().await;
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    if kind == Kind::Sqlite {
        for name in ["events.db", "events.db-wal", "views.db", "views.db-wal"] {
            let mode = std::fs::metadata(lab.site.data.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name} is for its owner only");
        }
    }
    // The deleted one's secret went with it.
    let holders = lab.secret_holders().await;
    assert_eq!(holders.len(), (calls + 1) * clients.len() - 1);
    assert!(!holders.contains(&id));
    assert_eq!(lab.guests().len(), (calls + 1) * clients.len() - 1);
    figure!(
        "keys rotate with {} server(s) at work, {kind:?}: {} deployments and as many new credentials \
         meanwhile, 0 refused, 0 secrets under the old key",
        sites.len(),
        calls * clients.len()
    );
    server.terminate();
    if let Some(second) = second {
        second.terminate();
    }
    // The destroyed key signed nothing after its end.
    lab.site.run(&["audit", "verify"]);
    // One that was left behind, as earlier versions did, goes with the next rotation.
    let left = of_application(&id.parse().unwrap(), "TOKEN");
    store_secrets(&lab.site, &[left]).await;
    assert!(lab.secret_holders().await.contains(&id));
    lab.site.run(&["keys", "rotate", "--grace", "0"]);
    let kept = lab.secret_holders().await;
    assert!(!kept.contains(&id) && kept.len() == holders.len(), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_on_while_its_key_is_replaced_on_sqlite() {
    servers_go_on(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_go_on_while_their_key_is_replaced_on_postgresql() {
    servers_go_on(Kind::Postgres).await;
}

fn signal(server: &proximity_tests::process::Server, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &server.pid().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_missed_a_rotation_says_what_it_lacks_and_goes_on_with_it_on_postgresql() {
    let lab = Lab::new(Kind::Postgres, 1).await;
    let (server, client) = lab.start().await;
    let other = lab.replica("b");
    let away = other.serve().await;
    let theirs = client.at(&other.url());
    signal(&away, "-STOP");
    lab.site.run(&["keys", "rotate", "--grace", "0", "--destroy"]);
    signal(&away, "-CONT");
    let new = keys(&lab.site).current_id().to_owned();
    let body = json!({ "password": lab.simulator.root_password() });
    let path = "/api/proxmox/hosts/1";
    let put = theirs.try_call(reqwest::Method::PUT, path, Some(&body), &[]).await.unwrap();
    assert_eq!((put.status.as_u16(), put.code()), (503, "keys.missing"), "{}", put.body);
    assert!(put.body["detail"].as_str().unwrap().contains(&new), "{}", put.body);
    // A look at itself is kept for a second.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (ready, health) = (theirs.get("/readyz").await, theirs.get("/api/health").await);
        if ready.status == 503 && health.body["keys"] == "missing" {
            assert_eq!(health.body["status"], "degraded");
            break;
        }
        assert!(Instant::now() < deadline, "{} {}", ready.body, health.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    changes_credential(&client, &lab).await;
    assert_eq!(client.get("/api/health").await.body["keys"], "held");
    // It forgets what was destroyed all the same.
    let file = other.data.join("master.key");
    while !std::fs::read_to_string(&file).unwrap().contains("\nretired ") {
        assert!(Instant::now() < deadline, "it keeps the destroyed key");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ours = std::fs::read_to_string(lab.site.data.join("master.key")).unwrap();
    let line = ours.lines().find(|line| line.starts_with(&new)).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{line}\n")).unwrap();
    changes_credential(&theirs, &lab).await;
    while theirs.get("/readyz").await.status != 200 {
        assert!(Instant::now() < deadline, "it is not ready again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.terminate();
    away.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_named_by_hand_is_trusted_no_further_than_those_of_the_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, folder.path()).await;
    let server = site.serve().await;
    site.run(&["user", "add", "eve"]);
    server.terminate();
    let stolen = keys(&site).derive(Purpose::SealSigning);
    let stolen = SigningKey::from_bytes(stolen.bytes());
    site.run(&["keys", "rotate", "--grace", "0", "--destroy"]);
    site.serve().await.terminate();
    let shown: Json = serde_json::from_str(&site.run(&["audit", "key", "-o", "json"])).unwrap();
    let public = shown[0]["public_key"].as_str().unwrap().to_owned();
    let verified = |more: &[&str]| {
        let arguments = [&["audit", "verify", "-o", "json"], more].concat();
        let output = site.command(&arguments).output().unwrap();
        let report: Json = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), report["first_break"]["kind"].clone())
    };
    assert_eq!(verified(&["--key", &public]), (0, Json::Null));
    // Whoever has the destroyed key, and may add to the heads, claims that the log had gone on.
    let store = Store::open_read_only(options(&site)).await.unwrap();
    let (life, head) = (store.incarnation(), store.head().await.unwrap());
    let block = store.last_seal().await.unwrap().unwrap().block + 1;
    store.close().await;
    let hash = "00".repeat(32);
    let head = Head { incarnation: life, block, position: head + 1, hash, sealed_at: 1 };
    let line = serde_json::to_string(&Signed::new(head, &stolen).unwrap()).unwrap() + "\n";
    let place = site.data.join("heads").join(life.to_string());
    std::fs::write(place.join("99999999999999999999-x.heads"), line).unwrap();
    let told = (6, json!("forged_head"));
    assert_eq!(verified(&[]), told);
    assert_eq!(verified(&["--key", &public]), told);
}

/// Every row of every table; the file's bytes also change when SQLite moves its journal into it.
fn stored(site: &Site) -> Vec<String> {
    let db = rusqlite::Connection::open(site.data.join("events.db")).unwrap();
    let all = |sql: &str| -> Vec<Vec<rusqlite::types::Value>> {
        let mut found = db.prepare(sql).unwrap();
        let width = found.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..width).map(|column| row.get(column)).collect();
        found.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut rows = Vec::new();
    for table in all("select name from sqlite_master where type = 'table' order by name") {
        let rusqlite::types::Value::Text(name) = &table[0] else { panic!("a table has a name") };
        rows.extend(
            all(&format!("select * from {name}")).iter().map(|row| format!("{name} {row:?}")),
        );
    }
    assert!(rows.len() > 10, "there is something to be kept");
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_or_missing_key_is_told_at_start_with_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, folder.path()).await;
    fill(&site).await;
    let path = site.data.join("master.key");
    let right = std::fs::read_to_string(&path).unwrap();
    let recovery = folder.path().join("recovery.json");
    let shown = site.run(&["keys", "export-recovery", recovery.to_str().unwrap(), "-o", "json"]);
    let code =
        serde_json::from_str::<Json>(&shown).unwrap()[0]["code"].as_str().unwrap().to_owned();
    let before = stored(&site);
    let start = || {
        let output = site.command(&["serve", "--listen", &site.listen]).output().unwrap();
        assert!(!output.status.success(), "it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    };
    std::fs::remove_file(&path).unwrap();
    assert!(start().contains("import-recovery"));
    // Another installation's key, and the right name with other bytes.
    let id = right.lines().last().unwrap().split(' ').next().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    KeyFile::Own(elsewhere.path().join("master.key")).open(false).unwrap();
    std::fs::copy(elsewhere.path().join("master.key"), &path).unwrap();
    assert!(start().contains(id));
    let foreign = std::fs::read_to_string(&path).unwrap();
    let name = foreign.lines().last().unwrap().split(' ').next().unwrap();
    std::fs::write(&path, foreign.replace(name, id)).unwrap();
    assert!(start().contains("put the right one back"));
    assert!(stored(&site) == before, "something was written");
    // Recovery on a machine that has only the database, the file and the code.
    std::fs::remove_file(&path).unwrap();
    let mut child = site
        .command(&["keys", "import-recovery", recovery.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), code.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), right);
    site.serve().await.terminate();
}
