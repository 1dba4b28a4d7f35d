//! A restore hides nothing that was done before or after it, and is not taken for tampering itself.

use std::path::Path;

use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::process::Site;
use serde_json::Value;

use crate::scene::{Scene, execute, verify};

/// Another machine with nothing but the key and the heads.
async fn machine(scene: &Scene, name: &str, heads: bool) -> Site {
    let data = scene.folder.path().join(name);
    let site = Site::new(scene.site.kind, &data).await;
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(scene.site.data.join("master.key"), data.join("master.key")).unwrap();
    if heads {
        let copy = scene.copy(&format!("{name} heads")).await;
        std::fs::rename(copy.data.join("heads"), data.join("heads")).unwrap();
    }
    site
}

/// What a command is refused with.
fn refused(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.command(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn backup(site: &Site, file: &Path) {
    let file = file.to_str().unwrap();
    site.run(&["backup", "create", file]);
    site.run(&["backup", "verify", file]);
}

fn clean(site: &Site) -> Value {
    let (code, report) = verify(site);
    assert_eq!((code, &report["clean"]), (0, &true.into()), "{report:#}");
    report
}

async fn a_restore_hides_nothing(kind: Kind) {
    let scene = Scene::new(kind).await;
    let (p, block) = (scene.blocks[5] + 7, scene.blocks[5]);
    let change = format!("update events set recorded_at = recorded_at + 1 where position = {p};");
    let mut tried = 0;
    for (name, seals, expected) in [
        ("changed", "", ("changed", p)),
        ("changed, all seals gone", "delete from seals", ("rewritten", block)),
        ("changed, its seals gone", "delete from seals where block >= 6", ("rewritten", block)),
    ] {
        let site = scene.copy(name).await;
        execute(&site, &format!("{change} {seals}")).await;
        assert_eq!(verify(&site).0, 6, "{name}");
        let file = scene.folder.path().join(format!("{name}.backup"));
        backup(&site, &file);
        let path = file.to_str().unwrap();
        let target = machine(&scene, &format!("{name} target"), true).await;
        let wanted = format!("{} at position {}", expected.0, expected.1);
        let (code, text) = refused(&target, &["backup", "restore", path]);
        assert!(code == Some(6) && text.contains(&wanted), "{name}: {code:?} {text}");
        let (code, text) = refused(&site, &["audit", "restored", "--note", "x"]);
        assert!(code == Some(6) && text.contains(&wanted), "{name}: {code:?} {text}");
        // Nothing was put there: it can still be filled, by somebody who says why.
        target.run(&["backup", "restore", path, "--accept-breaks", "--note", "we know"]);
        for served in [false, true] {
            if served {
                target.serve().await.terminate();
            }
            let (code, report) = verify(&target);
            let first = &report["first_break"];
            assert_eq!((code, &first["position"]), (6, &expected.1.into()), "{name}: {report:#}");
        }
        tried += 1;
    }

    // What nobody touched: with its heads, with none, and gone on with.
    let file = scene.folder.path().join("whole.backup");
    backup(&scene.older, &file);
    let path = file.to_str().unwrap();
    for heads in [true, false] {
        let target = machine(&scene, &format!("whole {heads}"), heads).await;
        let restored = target.run(&["backup", "restore", path, "-o", "json"]);
        let restored: Value = serde_json::from_str(&restored).unwrap();
        let kept = restored[0]["position"].as_u64().unwrap();
        let report = clean(&target);
        let left = if heads { scene.head - kept } else { 0 };
        assert_eq!(report["lives"][0]["left_behind"], left, "{report:#}");
        assert_eq!(report["sealed_to"], report["head"], "its beginning is sealed: {report:#}");
        target.serve().await.terminate();
        clean(&target);
        // Backed up, lost with its heads, and restored once more: what the first restore knew of is missed
        // until somebody says that it is lost, and the lives are explained all the same.
        let file = scene.folder.path().join(format!("again {heads}.backup"));
        backup(&target, &file);
        let next = machine(&scene, &format!("again {heads}"), false).await;
        let mut again = vec!["backup", "restore", file.to_str().unwrap()];
        if heads {
            let (code, text) = refused(&next, &again);
            assert!(code == Some(6) && text.contains("no_heads"), "{code:?} {text}");
            again.extend(["--accept-breaks", "--note", "the machine was lost"]);
        }
        next.run(&again);
        clean(&next);
        next.serve().await.terminate();
        clean(&next);
        // Done to it between its restoration and its first start.
        let target = machine(&scene, &format!("changed after {heads}"), heads).await;
        target.run(&["backup", "restore", path]);
        execute(&target, &format!("{change} delete from seals")).await;
        for served in [false, true] {
            if served {
                target.serve().await.terminate();
            }
            let (code, report) = verify(&target);
            assert_eq!(code, 6, "{report:#}");
        }
        tried += 1;
    }

    // Without the key nobody can sign; said later, after a server has gone on, it is well.
    let target = machine(&scene, "keyless", true).await;
    let key = target.data.join("master.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    target.run(&["backup", "restore", path]);
    std::fs::write(&key, kept).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = target.serve().await;
    target.run(&["user", "add", "eve"]);
    server.terminate();
    let log = std::fs::read_to_string(target.data.join("server.log")).unwrap();
    assert!(log.contains("audit restored"), "{log}");
    assert_eq!(verify(&target).1["first_break"]["kind"], "unknown_life");
    let server = target.serve().await;
    let (code, text) = refused(&target, &["audit", "restored", "--note", "x"]);
    assert!(code == Some(4) && !text.is_empty(), "beside a server: {code:?} {text}");
    server.terminate();
    target.run(&["audit", "restored", "--note", "the key was not at hand"]);
    clean(&target);
    target.serve().await.terminate();
    clean(&target);
    // Who accepts that the log ends before its last block learns that nothing is sealed behind it.
    let site = scene.copy("ends early").await;
    execute(&site, &format!("delete from events where position = {}", scene.head)).await;
    let (code, text) =
        refused(&site, &["audit", "restored", "--accept-breaks", "--note", "we know"]);
    assert!(code == Some(1) && text.contains("is not sealed and published"), "{code:?} {text}");
    figure!("{kind:?}: tampering around a restore: {tried} of {tried} found; 3 restores: 0 breaks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_hides_nothing_on_sqlite() {
    a_restore_hides_nothing(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_hides_nothing_on_postgres() {
    a_restore_hides_nothing(Kind::Postgres).await;
}
