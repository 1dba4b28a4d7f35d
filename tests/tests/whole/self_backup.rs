//! A drill: Proximity itself backed up under load, restored on an empty machine, looked at, confirmed.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proximity_eventstore::{Options, Store};
use proximity_tests::checker;
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use reqwest::Method;
use serde_json::{Value, json};

/// Deploys until told to stop; counts what was acknowledged.
async fn load(client: Client, number: usize, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = json!({ "catalog_id": "alpine", "hostname": format!("drill-{number}-{round}") });
        let answer = client.post("/api/apps/", body).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        done.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
}

fn first(output: &str) -> Value {
    serde_json::from_str::<Value>(output).unwrap()[0].clone()
}

fn options(site: &Site) -> Options {
    match site.database_url() {
        Some(url) => Options::postgres(url),
        None => Options::sqlite(&site.data),
    }
}

async fn head(site: &Site) -> u64 {
    let store = Store::open_read_only(options(site)).await.unwrap();
    let head = store.head().await.unwrap();
    store.close().await;
    head
}

async fn confirm_refused(client: &Client) {
    let answer = client.post("/api/core/restore/confirm", json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (409, "restore.nothing_to_confirm"));
}

/// What a reader of the old life saw last is no place to go on from, as soon as it may be of that life
/// only; what the new life sends is.
async fn streams_know_their_life(client: &Client, backed_up: u64, old_head: u64) {
    let open = async |after: &str| client.stream_behind("/api/events/stream", after).await.unwrap();
    // The new life has to reach what the old one had, or the number would be refused as too large.
    let settings = "/api/core/settings/resources";
    let mut wanted = client.get(settings).await.ok();
    let (mut head, mut round) = (0, 0);
    while head <= old_head {
        round += 1;
        wanted["default_swap_mb"] = json!(512 + round % 2);
        let changed = client.post(settings, wanted.clone()).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        let position = changed.headers["proximity-position"].to_str().unwrap();
        head = position.rsplit_once('.').unwrap().1.parse().unwrap();
    }
    for lost in [backed_up + 1, old_head] {
        let refused = open(&lost.to_string()).await;
        assert_eq!(refused.status(), 400, "{lost}");
        assert!(refused.text().await.unwrap().contains("position.unknown"));
    }
    everything_else_knows_its_life(client, backed_up).await;
    // Up to the backup both are the same, so nothing is missed.
    let mut after = backed_up.to_string();
    for number in 1..=3 {
        let mut stream = open(&after).await;
        assert_eq!(stream.status(), 200, "{after}");
        let mut text = String::new();
        while !text.contains("\n\n") {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        let (life, position) = id.split_once('.').expect("the id names the life");
        assert_eq!((life.len(), position), (32, &*(backed_up + number).to_string()), "{text}");
        after = id.to_owned();
    }
    let other = format!("{}.{backed_up}", "0".repeat(32));
    assert_eq!(open(&other).await.status(), 400);
}

/// No other parameter takes what may be of the old life either, and each takes what `next` gave.
async fn everything_else_knows_its_life(client: &Client, backed_up: u64) {
    let apps = client.get("/api/apps/").await.ok();
    let app = apps["apps"][0]["id"].as_str().unwrap();
    let page = client.get("/api/audit/events?limit=1").await.ok();
    let life = page["next"].as_str().unwrap().split_once('.').unwrap().0;
    for (path, name) in [
        (format!("/api/apps/{app}?at="), "at"),
        (format!("/api/apps/{app}/diff?from="), "from"),
        (format!("/api/apps/{app}/diff?from=1&to="), "to"),
        ("/api/audit/events?after=".to_owned(), "after"),
        ("/api/audit/events?until=".to_owned(), "until"),
        ("/api/apps/?min_position=".to_owned(), "min_position"),
    ] {
        let refused = client.get(&format!("{path}{}", backed_up + 1)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "position.unknown"), "{path}");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{name}: ")), "{detail}");
        for known in [format!("{life}.{}", backed_up + 1), backed_up.to_string()] {
            let answer = client.get(&format!("{path}{known}")).await;
            assert!([200, 404].contains(&answer.status.as_u16()), "{path}{known}: {}", answer.body);
        }
    }
}

async fn drill(from: Kind, to: Kind) {
    let lab = Lab::new(from, 1).await;
    let (server, client) = lab.start().await;
    confirm_refused(&client).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> =
        (0..4).map(|n| tokio::spawn(load(client.clone(), n, stop.clone(), done.clone()))).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while done.load(Ordering::Relaxed) < 25 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Under load: operations are open at this moment.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proximity.backup");
    let path = file.to_str().unwrap();
    let before = head(&lab.site).await;
    let created = first(&lab.site.run(&["backup", "create", path, "-o", "json"]));
    let after = head(&lab.site).await;
    let position = created["position"].as_u64().unwrap();
    assert!((before..=after).contains(&position));
    let at_backup = done.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    lab.settle(&client, Duration::from_secs(120)).await;
    // What happens after the backup is not in it: one application goes, and others were made.
    let apps = client.get("/api/apps/").await.ok();
    let gone = apps["apps"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(client.delete(&format!("/api/apps/{gone}")).await.status, 202);
    lab.settle(&client, Duration::from_secs(60)).await;
    let lost = head(&lab.site).await - position;
    server.terminate();

    let verified = first(&lab.site.run(&["backup", "verify", path, "-o", "json"]));
    for field in ["log", "tables", "state", "position"] {
        assert_eq!(verified[field], created[field], "{field}");
    }
    // Another machine: nothing but the file and a copy of the key.
    let machine = folder.path().join("machine");
    std::fs::create_dir(&machine).unwrap();
    let mut site = Site::new(to, &machine).await;
    for (key, value) in [("PORTS__PUBLIC", "20000-29999"), ("PORTS__INTERNAL", "10000-19999")] {
        site.set(&format!("PROXIMITY_{key}"), value);
    }
    site.set("PROXIMITY_PUBLISH__ENABLED", "false");
    std::fs::copy(lab.site.data.join("master.key"), machine.join("master.key")).unwrap();
    let started = Instant::now();
    let restored = first(&site.run(&["backup", "restore", path, "-o", "json"]));
    let restoring = started.elapsed();
    for field in ["log", "tables", "state", "position"] {
        assert_eq!(restored[field], created[field], "{field}");
    }
    let again = site.command(&["backup", "restore", path]).output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));

    let guests = lab.guests();
    let server = site.serve().await;
    let ready = started.elapsed();
    let client = Client::login(&site.url(), &lab.admin, &lab.password).await;
    streams_know_their_life(&client, position, position + lost).await;
    let answer = client
        .try_call(Method::POST, "/api/proxmox/hosts/1/reconcile", Some(&json!({})), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["removals"], json!([]));
    let shown = client.get("/api/core/restore").await.ok();
    assert_eq!(shown["restored"]["position"], position);
    let differences = shown["differences"].as_array().unwrap().clone();
    let count = |what: &str| differences.iter().filter(|one| one["what"] == what).count();
    let (open, unknown) = (count("operation"), count("container"));
    assert!(open > 0, "operations were open at the moment of the backup: {shown:#}");
    assert!(unknown > 0, "containers were made after it: {shown:#}");
    let told = first(&site.run(&["backup", "status", "-o", "json"]));
    assert_eq!(told["differences"].as_array().unwrap().len(), differences.len());
    // A call is accepted and waits like the rest; several looks of the runner later nothing has moved.
    let body = json!({ "catalog_id": "alpine", "hostname": "drill-waits" });
    let waits = client.post("/api/apps/", body).await;
    assert_eq!(waits.status, 202, "{}", waits.body);
    let quiet = head(&site).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let store = Store::open_read_only(options(&site)).await.unwrap();
    let moved = store.feed(quiet, 1_000).await.unwrap();
    store.close().await;
    assert!(moved.iter().all(|event| event.aggregate_type != "operation"), "{moved:#?}");
    assert_eq!(lab.guests(), guests, "nothing was touched");

    site.run(&["backup", "confirm"]);
    let deadline = Duration::from_secs(120);
    for state in ["planned", "running", "unwinding"] {
        let path = format!("/api/operations?state={state}");
        client.wait_until(&path, deadline, |a| a.body["total"].as_u64() == Some(0)).await;
    }
    confirm_refused(&client).await;
    let id = waits.body["id"].as_str().unwrap();
    client
        .wait_until(&format!("/api/apps/{id}"), deadline, |a| a.body["status"] == "running")
        .await;
    // The log and the cluster agree, but for what was made after the backup, which stays untouched.
    let store = Store::open_read_only(options(&site)).await.unwrap();
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(0, |e: &proximity_eventstore::Recorded| e.position);
        let page = store.feed(after, 5_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        events.extend(page);
    }
    store.close().await;
    let found = checker::check(&events, &lab.guests());
    let unexpected = |anomaly: &&String| {
        !anomaly.ends_with("exists, but no live application has it") && !anomaly.contains(&gone)
    };
    let unexpected: Vec<_> = found.anomalies.iter().filter(unexpected).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    site.run(&["projections", "verify"]);
    figure!(
        "backup of Proximity, {from:?} to {to:?}: {at_backup} deployments acknowledged when it was made \
         under load ({position} events, {} ms, {} bytes); {lost} later events are not in it; restored and \
         replayed in {} ms, ready after {} ms; {open} open operations and {unknown} unknown containers \
         shown, 0 touched before the confirmation",
        created["milliseconds"],
        std::fs::metadata(&file).unwrap().len(),
        restoring.as_millis(),
        ready.as_millis()
    );
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_restored_and_waits_for_a_person_on_sqlite() {
    drill(Kind::Sqlite, Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_restored_and_waits_for_a_person_on_postgresql() {
    drill(Kind::Postgres, Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_postgresql_is_restored_on_sqlite() {
    drill(Kind::Postgres, Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_secret_is_in_no_backup_that_anyone_can_open_once_its_key_is_destroyed() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, client) = lab.start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("with-the-secret");
    let path = file.to_str().unwrap();
    lab.site.run(&["backup", "create", path]);
    let kept = folder.path().join("kept.key");
    std::fs::copy(lab.site.data.join("master.key"), &kept).unwrap();
    // The host's credential is removed with the host; the key that it was under is destroyed.
    assert!(client.delete("/api/proxmox/hosts/1").await.status.is_success());
    lab.site.run(&["keys", "rotate", "--destroy"]);
    server.terminate();
    let restore = |name: &str, key: &std::path::Path| {
        let machine = folder.path().join(name);
        std::fs::create_dir(&machine).unwrap();
        std::fs::copy(key, machine.join("master.key")).unwrap();
        machine
    };
    // A control: with a copy of the old key, that was kept against the advice, it opens.
    let machine = restore("control", &kept);
    let site = Site::new(Kind::Sqlite, &machine).await;
    site.run(&["backup", "restore", path]);
    let control = site.serve().await;
    let client = Client::login(&site.url(), &lab.admin, &lab.password).await;
    let tested = client.post("/api/proxmox/hosts/1/test", json!({})).await;
    assert!(tested.status.is_success(), "the credential does not open: {}", tested.body);
    control.terminate();
    let machine = restore("machine", &lab.site.data.join("master.key"));
    let site = Site::new(Kind::Sqlite, &machine).await;
    site.run(&["backup", "restore", path]);
    let serving = site.command(&["serve", "--listen", &site.listen]).output().unwrap();
    assert!(!serving.status.success(), "it starts");
    let text = String::from_utf8_lossy(&serving.stderr).into_owned();
    assert!(text.contains("which the key file does not hold"), "{text}");
    // The key file has no byte of the key that the backup is under.
    let status = site.command(&["keys", "status"]).output().unwrap();
    assert!(!status.status.success());
    figure!("a removed secret after its key's destruction: the restored backup does not open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_found_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let file = folder.path().join("whole");
    lab.site.run(&["backup", "create", file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    let fails = |bytes: &[u8], what: &str| {
        let bent = folder.path().join("bent");
        std::fs::write(&bent, bytes).unwrap();
        let mut command = lab.site.command(&["backup", "verify", bent.to_str().unwrap()]);
        let output = command.stdout(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{what} is not found");
    };
    for part in 0..12 {
        let mut bent = whole.clone();
        let at = bent.len() * part / 12;
        bent[at] ^= 1;
        // Four bytes of the gzip head hold a time that nobody reads.
        if !(4..10).contains(&at) {
            fails(&bent, &format!("a changed byte at {at}"));
        }
    }
    fails(&whole[..whole.len() - 1], "a missing last byte");
    fails(&whole[..whole.len() / 2], "a missing half");
    // Behind its end: bytes, zeros, another file, the same one again.
    let mut gzip = std::process::Command::new("gzip");
    let packed = gzip.arg("-c").stdin(Stdio::null()).output().unwrap();
    for (what, rest) in [
        ("bytes", &b"garbage"[..]),
        ("zeros", &[0; 512][..]),
        ("an empty file, packed", &packed.stdout[..]),
        ("the file again", &whole[..]),
    ] {
        fails(&[&whole[..], rest].concat(), what);
    }
    // A whole file again with one event changed: the checksum of the lines is another one.
    let mut text = Vec::new();
    let unpack = std::process::Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    text.write_all(&unpack.stdout).unwrap();
    let text = String::from_utf8(text).unwrap();
    let changed = text.replacen("user.created", "user.creatEd", 1);
    let changed =
        if changed == text { text.replacen("\"event\":[1,", "\"event\":[2,", 1) } else { changed };
    assert_ne!(changed, text);
    let plain = folder.path().join("plain");
    std::fs::write(&plain, changed).unwrap();
    let packed = std::process::Command::new("gzip").arg("-c").arg(&plain).output().unwrap();
    fails(&packed.stdout, "a changed event");
}
