//! A master key that systemd hands over: replaced and destroyed in a copy, never in memory alone.

use std::path::{Path, PathBuf};
use std::process::Output;

use proximity_tests::database::Kind;
use proximity_tests::process::{Site, copy_folder};
use serde_json::Value as Json;

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// The command with a copy of the file, as the guide for operators has it; the copy is handed over after.
fn in_a_copy(site: &Site, credential: &Path, arguments: &[&str]) {
    let copy = site.data.join("copy.key");
    std::fs::copy(credential, &copy).unwrap();
    let output = site.command(arguments).env("PROXIMITY_MASTER_KEY_FILE", &copy).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    std::fs::rename(&copy, credential).unwrap();
}

fn doctor(site: &Site) -> Vec<String> {
    let output = site.command(&["doctor", "-o", "json"]).output().unwrap();
    let findings: Vec<Json> = serde_json::from_slice(&output.stdout).unwrap();
    let keys = findings.iter().filter(|finding| finding["check"] == "master key");
    let wrong = keys.filter(|finding| finding["well"] == false);
    wrong.map(|finding| finding["found"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_systemd_hands_over_is_replaced_and_destroyed_in_a_copy() {
    let (folder, handed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut site = Site::new(Kind::Sqlite, folder.path()).await;
    site.run(&["user", "add", "eve"]);
    let credential: PathBuf = handed.path().join("proximity-master-key");
    std::fs::rename(site.data.join("master.key"), &credential).unwrap();
    site.set("CREDENTIALS_DIRECTORY", handed.path().to_str().unwrap());
    let refused = |arguments: &[&str]| {
        let before = std::fs::read(&credential).unwrap();
        let output = site.command(arguments).output().unwrap();
        let told = said(&output);
        assert!(!output.status.success(), "{arguments:?}: {told}");
        assert!(told.contains(credential.to_str().unwrap()), "{told}");
        assert!(told.contains("PROXIMITY_MASTER_KEY_FILE"), "{told}");
        assert_eq!(std::fs::read(&credential).unwrap(), before);
        told
    };
    // Through the server, whose answer has the file and the way out as well, and without one.
    let server = site.serve().await;
    refused(&["keys", "rotate"]);
    refused(&["keys", "rotate", "--destroy"]);
    server.terminate();
    refused(&["keys", "rotate"]);
    site.run(&["audit", "verify"]);
    in_a_copy(&site, &credential, &["keys", "rotate"]);
    let [new, old] = <[String; 2]>::try_from(lines(&credential)).unwrap();
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    let server = site.serve().await;
    for _ in 0..2 {
        let told = refused(&["keys", "destroy", &id(&old)]);
        assert!(told.contains(&format!("line of key {}", id(&old))), "{told}");
    }
    assert_eq!(doctor(&site), Vec::<String>::new());
    server.terminate();
    in_a_copy(&site, &credential, &["keys", "destroy", &id(&old)]);
    assert!(lines(&credential)[1].starts_with("retired "));
    let destroyed = std::fs::read(&credential).unwrap();
    // One who puts the lines together by hand, the destroyed one in front.
    std::fs::write(&credential, format!("{old}\n{new}\n")).unwrap();
    site.serve().await.terminate();
    let log = std::fs::read_to_string(site.data.join("server.log")).unwrap();
    assert!(log.contains("put the line of this generation first"), "{log}");
    assert!(log.contains("destroyed master keys are still in the key file"), "{log}");
    let wrong = doctor(&site);
    assert!(wrong.len() == 1 && wrong[0].contains(&id(&old)), "{wrong:?}");
    refused(&["keys", "destroy", &id(&old)]);
    site.run(&["user", "add", "ann"]);
    site.run(&["audit", "verify"]);
    std::fs::write(&credential, destroyed).unwrap();
    site.run(&["audit", "verify"]);
    site.run(&["keys", "destroy", &id(&old)]);
    assert_eq!(doctor(&site), Vec::<String>::new());
    site.serve().await.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_is_older_than_the_log_is_told_and_accuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, folder.path()).await;
    let server = site.serve().await;
    site.run(&["user", "add", "eve"]);
    server.terminate();
    let older = folder.path().join("older.key");
    std::fs::copy(site.data.join("master.key"), &older).unwrap();
    site.run(&["keys", "rotate", "--grace", "0", "--destroy"]);
    site.serve().await.terminate();
    let verified = |file: &Path| with(&site, file, &["audit", "verify", "-o", "json"]);
    let new = lines(&site.data.join("master.key"))[0].clone();
    let (code, told) = verified(&older);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains(new.split(' ').next().unwrap()) && !told.contains("unknown_key"),
        "{told}"
    );
    signs_for_nothing(&site, &older);
    // With that line it verifies, whatever else it still has.
    let both = folder.path().join("both.key");
    let old = lines(&older)[0].clone();
    // Copied, so that it is for its owner only.
    std::fs::copy(&older, &both).unwrap();
    std::fs::write(&both, format!("{old}\n{new}\n")).unwrap();
    assert_eq!(verified(&both).0, 0);
    // What is wrong beside the keys is found with either.
    let events = rusqlite::Connection::open(site.data.join("events.db")).unwrap();
    events
        .execute_batch(
            "drop trigger events_are_never_changed; update events set recorded_at = recorded_at + 1 where position = 1",
        )
        .unwrap();
    for file in [&older, &both] {
        let (code, told) = verified(file);
        assert!(code == 6 && told.contains("changed"), "{told}");
    }
}

/// A command's exit code and all that it says with a key file.
fn with(site: &Site, file: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = site.command(arguments);
    let output = command.env("PROXIMITY_MASTER_KEY_FILE", file).output().unwrap();
    (output.status.code().unwrap(), said(&output))
}

/// Nobody signs for a restore with a file that lacks the log's key, or is told how to do it all the same.
fn signs_for_nothing(site: &Site, file: &Path) {
    for more in [&[][..], &["--accept-breaks"]] {
        let arguments =
            [&["audit", "restored", "--note", "the database was put back"], more].concat();
        let (code, told) = with(site, file, &arguments);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("not that of the log") && !told.contains("--accept"), "{told}");
    }
    assert!(!site.data.join("heads/lives").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_of_another_installation_is_told_before_the_first_rotation_too() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let site = Site::new(Kind::Sqlite, folder.path()).await;
    for site in [&site, &Site::new(Kind::Sqlite, other.path()).await] {
        let server = site.serve().await;
        site.run(&["user", "add", "eve"]);
        server.terminate();
    }
    let file = other.path().join("master.key");
    let (code, told) = with(&site, &file, &["audit", "verify", "-o", "json"]);
    assert!(code == 1 && !told.contains("unknown_key"), "{code} {told}");
    signs_for_nothing(&site, &file);
    // What it writes is left to the server, and nothing is said of heads.
    let (code, told) = with(&site, &file, &["user", "add", "ann"]);
    assert!(code == 0 && !told.contains("heads") && told.contains("next server"), "{code} {told}");
    site.serve().await.terminate();
    site.run(&["audit", "verify"]);
}

/// Another machine, with the heads and this text as its key file.
async fn machine(folder: &Path, heads: &Path, keys: &str) -> Site {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new(Kind::Sqlite, folder).await;
    copy_folder(heads, &site.data.join("heads"));
    let file = site.data.join("master.key");
    std::fs::write(&file, keys).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_signed_with_the_key_that_seals_whatever_the_order_of_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, &folder.path().join("first")).await;
    let own = site.data.join("master.key");
    site.run(&["user", "add", "eve"]);
    site.serve().await.terminate();
    let oldest = lines(&own)[0].clone();
    site.run(&["keys", "rotate", "--grace", "0"]);
    site.run(&["keys", "rotate", "--grace", "0"]);
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    site.run(&["keys", "destroy", &id(&oldest)]);
    let [newest, older, retired] = <[String; 3]>::try_from(lines(&own)).unwrap();
    let backup = folder.path().join("backup");
    site.run(&["backup", "create", backup.to_str().unwrap()]);
    let proper = std::fs::read_to_string(&own).unwrap();
    let key = |site: &Site| -> Json {
        let shown = site.run(&["audit", "key", "-o", "json"]);
        serde_json::from_str::<Json>(&shown).unwrap()[0].clone()
    };
    let sealing = key(&site);
    let by_hand = [
        format!("{oldest}\n{newest}\n{older}\n"),
        format!("{oldest}\n{older}\n{newest}\n{retired}\n"),
        format!("{older}\n{newest}\n{retired}\n"),
    ];
    for (number, text) in by_hand.iter().enumerate() {
        for handed_over in [false, true] {
            let name = format!("{number}-{handed_over}");
            let heads = site.data.join("heads");
            let mut other = machine(&folder.path().join(&name), &heads, text).await;
            if handed_over {
                let credentials = folder.path().join(format!("{name}-credentials"));
                std::fs::create_dir(&credentials).unwrap();
                let credential = credentials.join("proximity-master-key");
                std::fs::rename(other.data.join("master.key"), credential).unwrap();
                other.set("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
            }
            other.run(&["backup", "restore", backup.to_str().unwrap()]);
            other.run(&["audit", "verify"]);
            let shown = key(&other);
            assert_eq!((&shown, &shown["signs"]), (&sealing, &Json::Bool(true)), "{name}");
            if !handed_over {
                other.serve().await.terminate();
                std::fs::write(other.data.join("master.key"), &proper).unwrap();
                // Also when what was replaced is gone: it has signed nothing of this life.
                other.run(&["keys", "destroy", &id(&older)]);
                other.run(&["audit", "verify"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_signs_for_a_log_whose_key_was_destroyed_since() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, &folder.path().join("newer")).await;
    site.run(&["user", "add", "eve"]);
    site.serve().await.terminate();
    let older = site.copy(&folder.path().join("older")).await;
    site.run(&["keys", "rotate", "--grace", "0", "--destroy"]);
    let newest = site.data.join("master.key");
    assert!(lines(&newest)[1].starts_with("retired "));
    // What is left of it verifies what it signed.
    let (code, told) = with(&older, &newest, &["audit", "verify"]);
    assert_eq!(code, 0, "{told}");
    signs_for_nothing(&older, &newest);
    let (code, told) = with(&older, &newest, &["user", "add", "ann"]);
    assert!(code == 0 && told.contains("next server"), "{code} {told}");
    older.serve().await.terminate();
    older.run(&["audit", "verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_signs_for_a_log_whose_word_on_its_keys_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, folder.path()).await;
    site.serve().await.terminate();
    site.run(&["keys", "rotate", "--grace", "0"]);
    let events = rusqlite::Connection::open(site.data.join("events.db")).unwrap();
    events
        .execute_batch(
            "drop trigger events_are_never_changed; update events set payload = '{}' where aggregate_type = 'keys'",
        )
        .unwrap();
    drop(events);
    let file = site.data.join("master.key");
    let accepted = ["audit", "restored", "--note", "x", "--accept-breaks"];
    let (code, told) = with(&site, &file, &accepted);
    assert!(code == 1 && told.contains("of its keys cannot be read"), "{code} {told}");
    assert!(!site.data.join("heads/lives").exists());
    // Whoever only verifies is told what is wrong.
    let (code, told) = with(&site, &file, &["audit", "verify"]);
    assert!(code == 6 && told.contains("changed"), "{code} {told}");
}
