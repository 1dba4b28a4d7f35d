//! Each kind of tampering, done with every right on the database, is found by `proximity audit verify`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tamper/restores.rs"]
mod restores;
#[path = "tamper/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::process::Site;
use serde_json::Value;

use scene::{APPENDS, Scene, execute, seal, verify};

/// Moves all events from a position on by `step` places.
fn moved(from: u64, step: i64) -> String {
    format!(
        "update events set position = -position where position >= {from};
         update events set position = {step} - position where position < 0;"
    )
}

/// One case: what is done, and what has to be found where.
struct Case {
    name: &'static str,
    sql: String,
    kind: &'static str,
    position: u64,
}

/// Everything that is done by SQL alone.
fn cases(scene: &Scene) -> Vec<Case> {
    let json = if scene.site.kind == Kind::Postgres { ("::text", "::json") } else { ("", "") };
    let (p, head) = (scene.blocks[5] + 7, scene.head);
    let boundary = scene.blocks[8];
    let replace = |column: &str, from: &str, to: &str| {
        let (text, back) = json;
        format!(
            "update events set {column} = replace({column}{text}, '{from}', '{to}'){back} where position = {p}"
        )
    };
    let swap = |other: u64| {
        format!(
            "update events set position = 1000000 where position = {p};
             update events set position = {p} where position = {other};
             update events set position = {other} where position = 1000000;"
        )
    };
    let columns = "aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at";
    let copy = |to: i64| {
        format!(
            "insert into events (position, {columns}) select {to}, {columns} from events where position = {p};"
        )
    };
    let at = |position: u64| i64::try_from(position).unwrap();
    let put_in = format!(
        "insert into events (position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at)
         values ({p}, 'thing', 'new', 1, 'lease.cleared', '1', '{{}}', '{{}}', 1);"
    );
    let case = |name, sql: String, kind, position| Case { name, sql, kind, position };
    let mut cases = vec![
        case("a byte of a payload", replace("payload", "\"n\": 7", "\"n\": 8"), "changed", p),
        case("blank space in a payload", replace("payload", "{\"n\"", "{ \"n\""), "changed", p),
        case("a byte of metadata", replace("metadata", "\"r\"", "\"q\""), "changed", p),
        case("the actor", replace("metadata", "user/1", "user/2"), "changed", p),
        case(
            "the time",
            format!("update events set recorded_at = recorded_at + 1 where position = {p}"),
            "changed",
            p,
        ),
        case(
            "the stream",
            format!("update events set aggregate_id = 'other' where position = {p}"),
            "changed",
            p,
        ),
        case(
            "the sequence",
            format!("update events set sequence = -sequence where position = {p}"),
            "changed",
            p,
        ),
        case("two neighbours swapped", swap(p + 1), "swapped", p),
        case("two events far apart swapped", swap(p + 60), "swapped", p),
        case("the first removed", "delete from events where position = 1".to_owned(), "removed", 1),
        case(
            "one in the middle removed",
            format!("delete from events where position = {p}"),
            "removed",
            p,
        ),
        case(
            "the last removed",
            format!("delete from events where position = {head}"),
            "removed",
            head,
        ),
        case(
            "one removed and the rest moved up",
            format!("delete from events where position = {p}; {}", moved(p + 1, -1)),
            "removed",
            p,
        ),
        case(
            "one inserted and the rest moved on",
            format!("{} {put_in}", moved(p, 1)),
            "inserted",
            p,
        ),
        case(
            "one duplicated and the rest moved on",
            format!("{} {}", moved(p + 1, 1), copy(at(p + 1))),
            "inserted",
            p + 1,
        ),
        case("one duplicated where nobody looks", copy(-at(p)), "duplicated", 0),
        case(
            "the tail cut, seals and all",
            format!(
                "delete from events where position >= {boundary}; delete from seals where last_position >= {boundary}"
            ),
            "cut",
            boundary,
        ),
        case(
            "the tail cut within a block",
            format!(
                "delete from events where position > {}; delete from seals where first_position > {}",
                p, p
            ),
            "removed",
            p + 1,
        ),
        case("the chain dropped", "delete from seals".to_owned(), "cut", 1),
        case(
            "a block dropped",
            "delete from seals where block = 6".to_owned(),
            "broken_block",
            scene.blocks[5],
        ),
        case(
            "a block's hash",
            "update seals set hash = leaves where block = 6".to_owned(),
            "broken_block",
            scene.blocks[5],
        ),
        case(
            "a signature",
            "update seals set signature = hash where block = 6".to_owned(),
            "bad_signature",
            scene.blocks[5],
        ),
        case(
            "another life of the log",
            "update meta set value = '00000000000040008000000000000001' where key = 'incarnation'"
                .to_owned(),
            "unknown_life",
            head + 1,
        ),
    ];
    if scene.site.kind == Kind::Postgres {
        // SQLite's table cannot hold two rows of one position.
        cases.push(case("one duplicated in its place", copy(at(p)), "duplicated", p));
    }
    cases
}

struct Tally {
    tried: usize,
    found: usize,
    right: usize,
}

impl Tally {
    fn hold(&mut self, kind: Kind, name: &str, site: &Site, expected: (&str, u64)) {
        let (code, report) = verify(site);
        let first = &report["first_break"];
        self.tried += 1;
        self.found += usize::from(code == 6 && report["clean"] == false);
        let right = first["kind"] == expected.0 && first["position"] == expected.1;
        self.right += usize::from(right);
        assert!(
            right && code == 6,
            "{kind:?}: {name}: expected {expected:?}, got {code} {report:#}"
        );
    }
}

async fn each_kind_of_tampering_is_found(kind: Kind) {
    let scene = Scene::new(kind).await;
    // The control: what nobody touched verifies, and so does a copy.
    let (code, report) = verify(&scene.site);
    assert_eq!(
        (code, &report["clean"], &report["breaks"]),
        (0, &true.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(report["sealed_to"], scene.head);
    assert!(report["heads"].as_u64().unwrap() >= APPENDS, "{report:#}");
    let (code, copied) = verify(&scene.copy("untouched").await);
    assert_eq!(code, 0, "{copied:#}");

    let mut tally = Tally { tried: 0, found: 0, right: 0 };
    for Case { name, sql, kind: expected, position } in cases(&scene) {
        let site = scene.copy(name).await;
        execute(&site, &sql).await;
        tally.hold(kind, name, &site, (expected, position));
    }

    let p = scene.blocks[5] + 7;
    let change = format!("update events set recorded_at = recorded_at + 1 where position = {p};");
    // A chain that is shorter than what the database remembers to be published is not extended.
    let forget = "delete from published;";
    let (stranger, elsewhere) =
        (SigningKey::from_bytes(&rand::random()), tempfile::tempdir().unwrap());

    let site = scene.copy("anew with another key").await;
    execute(&site, &format!("{change} {forget} delete from seals")).await;
    seal(&site, &stranger, &elsewhere.path().join("a"), 0..0).await;
    tally.hold(kind, "the whole chain made anew with another key", &site, ("unknown_key", 1));

    let site = scene.copy("anew from there on").await;
    execute(&site, &format!("{change} {forget} delete from seals where block >= 6")).await;
    seal(&site, &stranger, &elsewhere.path().join("b"), 0..0).await;
    tally.hold(
        kind,
        "the chain made anew from there on with another key",
        &site,
        ("unknown_key", scene.blocks[5]),
    );

    let site = scene.copy("anew with old signatures").await;
    let kept = "create table kept as select * from seals; delete from seals;";
    execute(&site, &format!("{change} {forget} {kept}")).await;
    seal(&site, &stranger, &elsewhere.path().join("c"), 0..0).await;
    execute(&site, "update seals set key_id = (select key_id from kept where kept.block = 1), signature = (select signature from kept where kept.block = 1)").await;
    tally.hold(
        kind,
        "the whole chain made anew under the old signatures",
        &site,
        ("bad_signature", 1),
    );

    // Even with the key: the heads that were published are others.
    let site = scene.copy("anew with the key").await;
    execute(&site, &format!("{change} {forget} delete from seals where block >= 6")).await;
    seal(&site, &scene.key, &elsewhere.path().join("d"), 0..0).await;
    tally.hold(
        kind,
        "the chain made anew with the stolen key",
        &site,
        ("rewritten", scene.blocks[5]),
    );

    // The rows of an older copy beside the heads of today.
    let older = scene.older.copy(&scene.folder.path().join("older-put-back")).await;
    std::fs::remove_dir_all(older.data.join("heads")).unwrap();
    std::fs::rename(scene.copy("heads").await.data.join("heads"), older.data.join("heads"))
        .unwrap();
    let after = scene.blocks[scene.blocks.len() - 3];
    tally.hold(kind, "an old backup put back", &older, ("cut", after));
    // A server that goes on from there does not cover it up.
    let server = older.serve().await;
    older.run(&["user", "add", "eve"]);
    server.terminate();
    tally.hold(kind, "an old backup put back, and gone on with", &older, ("cut", after));

    let fresh = Site::new(kind, &scene.folder.path().join("fresh")).await;
    std::fs::create_dir(&fresh.data).unwrap();
    std::fs::copy(scene.site.data.join("master.key"), fresh.data.join("master.key")).unwrap();
    std::fs::rename(scene.copy("more heads").await.data.join("heads"), fresh.data.join("heads"))
        .unwrap();
    if kind == Kind::Postgres {
        fresh.run(&["migrate"]);
    }
    fresh.serve().await.terminate();
    tally.hold(kind, "another log in its place", &fresh, ("unknown_life", 1));

    figure!(
        "{kind:?}: tampering: {} of {} kinds found by `audit verify`, the first position right in {}; an untouched log: 0 breaks",
        tally.found,
        tally.tried,
        tally.right
    );

    // Said with the key, an old backup is a new life, and what it left behind is told.
    let site = scene.older.copy(&scene.folder.path().join("restored")).await;
    std::fs::remove_dir_all(site.data.join("heads")).unwrap();
    std::fs::rename(scene.copy("last heads").await.data.join("heads"), site.data.join("heads"))
        .unwrap();
    site.run(&["audit", "restored", "--note", "the disk was lost"]);
    let server = site.serve().await;
    site.run(&["user", "add", "eve"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    let report = loop {
        // Beside the running server, and again and again: it never disturbs and is never disturbed.
        let (code, report) = verify(&site);
        assert_eq!(code, 0, "{report:#}");
        if report["sealed_to"] == report["head"] && report["lives"].as_array().unwrap().len() == 2 {
            break report;
        }
        assert!(Instant::now() < deadline, "{report:#}");
    };
    server.terminate();
    let (lives, lost) = (&report["lives"], scene.head - (after - 1));
    assert_eq!(
        (&lives[0]["restored"], &lives[0]["left_behind"]),
        (&true.into(), &lost.into()),
        "{report:#}"
    );
    figure!(
        "{kind:?}: a restore that was said: {} breaks, {lost} events told as left behind",
        report["breaks"]
    );
    execute(&site, &change).await;
    let (code, report) = verify(&site);
    assert_eq!((code, &report["first_break"]["position"]), (6, &p.into()), "{report:#}");

    // Elsewhere, with the public key alone.
    let keys: Value =
        serde_json::from_str(&scene.site.run(&["audit", "key", "-o", "json"])).unwrap();
    let key = keys[0]["public_key"].as_str().unwrap();
    let site = scene.copy("elsewhere").await;
    std::fs::remove_file(site.data.join("master.key")).unwrap();
    site.run(&["audit", "verify", "--key", key]);
    let alone = site.command(&["audit", "verify"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(1), "{alone:?}");
    assert!(!site.data.join("master.key").exists(), "verifying made a key");
    std::fs::remove_dir_all(site.data.join("heads")).unwrap();
    std::fs::create_dir(site.data.join("heads")).unwrap();
    // A chain that is older than a moment, and of which no head is anywhere.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let output =
            site.command(&["audit", "verify", "-o", "json", "--key", key]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        if report["first_break"]["kind"] == "no_heads" && output.status.code() == Some(6) {
            break;
        }
        assert!(Instant::now() < deadline, "{report:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_tampering_is_found_on_sqlite() {
    each_kind_of_tampering_is_found(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_tampering_is_found_on_postgres() {
    each_kind_of_tampering_is_found(Kind::Postgres).await;
}
