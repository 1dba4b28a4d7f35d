//! The shell and the log: what it does is written down, what it asks is refused where it cannot be, what
//! it answers is not cut short without a word, and what says that it only reads changes nothing.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use serde_json::{Value, json};

/// Runs a command; its exit code, and all that it said.
fn tried(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = lab.site.command(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.code().unwrap(), said.concat())
}

fn acts(lab: &Lab) -> Vec<(String, String)> {
    let told = lab.site.run(&["audit", "log", "--type", "admin_action", "-o", "json"]);
    let events: Vec<Value> = serde_json::from_str(&told).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let act = |event: &Value| (text(&event["actor"]), text(&event["payload"]["performed"]["call"]));
    events.iter().map(act).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shell_does_is_in_the_log_beside_a_server_and_without_one() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (server, _) = lab.start().await;
    lab.site.run(&["keys", "export-recovery", &file("beside.keys")]);
    lab.site.run(&["backup", "create", &file("beside.backup")]);
    lab.site.run(&["projections", "rebuild", "hosts"]);
    lab.site.run(&["projections", "switch-back", "hosts"]);
    server.terminate();
    lab.site.run(&["keys", "export-recovery", &file("without.keys")]);
    let calls = ["keys export-recovery", "backup create", "projections rebuild"];
    let calls = [calls.as_slice(), &["projections switch-back", "keys export-recovery"]].concat();
    let wanted: Vec<(String, String)> =
        calls.into_iter().map(|call| ("system/cli".to_owned(), call.to_owned())).collect();
    assert_eq!(acts(&lab), wanted);
    // No server runs that would seal what is more than a note.
    lab.site.run(&["user", "add", "ann"]);
    let found: Value =
        serde_json::from_str(&lab.site.run(&["audit", "verify", "-o", "json"])).unwrap();
    assert_eq!((&found["sealed_to"], &found["warnings"]), (&found["head"], &json!([])), "{found}");
    assert_eq!(found["lives"][0]["published_to"], found["head"], "{found}");
}

/// Files with heads below a directory, and all of their lines.
fn published(heads: &Path) -> Vec<String> {
    let lives = std::fs::read_dir(heads).unwrap().map(|entry| entry.unwrap().path());
    let files = lives.filter(|path| !path.ends_with("keys") && !path.ends_with("lives"));
    let files = files.flat_map(|life| std::fs::read_dir(life).unwrap());
    let text = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    text.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_keys_or_of_the_log_that_is_made_at_rest_is_sealed_and_accuses_no_other() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let verified = |more: &[&str]| -> Value {
        let arguments = [&["audit", "verify", "-o", "json"], more].concat();
        serde_json::from_str(&lab.site.run(&arguments)).unwrap()
    };
    for arguments in [["keys", "export-recovery"], ["backup", "create"]] {
        lab.site.run(&[&arguments[..], &[&file(arguments[1])]].concat());
        let found = verified(&[]);
        assert_eq!(found["sealed_to"], found["head"], "{found}");
        assert_eq!(found["lives"][0]["published_to"], found["head"], "{found}");
    }
    // A copy is left as it is, and publishes nothing beside the heads of the real one.
    let heads = file("heads");
    std::fs::rename(lab.site.data.join("heads"), &heads).unwrap();
    let (named, before) = (format!("audit.heads_dir={heads}"), published(Path::new(&heads)));
    let end = verified(&["--set", &named])["sealed_to"].clone();
    let copy = lab.site.copy(&folder.path().join("copy")).await;
    copy.run(&["backup", "create", &file("of the copy"), "--set", &named]);
    let found = copy.run(&["audit", "verify", "-o", "json", "--set", &named]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["sealed_to"], &found["clean"]), (&end, &json!(true)), "{found}");
    assert_eq!(published(Path::new(&heads)), before);
    // Nor is a log gone on with that ends before its heads do.
    let connection = rusqlite::Connection::open(lab.site.data.join("events.db")).unwrap();
    let sql = "delete from seals where block = (select max(block) from seals)";
    connection.execute_batch(sql).unwrap();
    let last = || -> u64 {
        connection.query_row("select max(block) from seals", [], |row| row.get(0)).unwrap()
    };
    let cut = last();
    lab.site.run(&["backup", "create", &file("third"), "--set", &named]);
    assert_eq!(last(), cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_before_the_first_start_does_not_keep_a_server_from_publishing_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(Kind::Sqlite, &folder.path().join("data")).await;
    site.run(&["user", "add", "ann", "--admin"]);
    let heads = folder.path().join("heads").to_str().unwrap().to_owned();
    site.set("PROXIMITY_AUDIT__HEADS_DIR", &heads);
    let server = site.serve().await;
    server.terminate();
    let found: Value = serde_json::from_str(&site.run(&["audit", "verify", "-o", "json"])).unwrap();
    assert_eq!((&found["clean"], &found["warnings"]), (&json!(true), &json!([])), "{found}");
    assert_eq!(found["lives"][0]["published_to"], found["head"], "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_is_held_have_exit_codes_of_their_own() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nosuch").to_str().unwrap().to_owned();
    let made = folder.path().join("made");
    for arguments in [
        &["keys", "destroy", "nosuch"][..],
        &["keys", "import-recovery", &nowhere],
        &["backup", "verify", &nowhere],
        &["backup", "restore", &nowhere],
    ] {
        let (code, said) = tried(&lab, arguments);
        assert_eq!(code, 5, "{arguments:?}: {said}");
    }
    let empty = Site::new(Kind::Sqlite, &made).await;
    std::fs::remove_dir_all(&made).unwrap_or_default();
    let output = empty.command(&["backup", "restore", &nowhere]).output().unwrap();
    assert_eq!((output.status.code(), made.exists()), (Some(5), false));
    let generation: Value =
        serde_json::from_str(&lab.site.run(&["keys", "status", "-o", "json"])).unwrap();
    let generation = generation[0]["generation"].as_str().unwrap();
    assert_eq!(tried(&lab, &["keys", "destroy", generation]).0, 1, "it is the one that seals");
    let backup = folder.path().join("backup").to_str().unwrap().to_owned();
    lab.site.run(&["backup", "create", &backup]);
    let (server, _) = lab.start().await;
    for arguments in [&["demo", "--listen", "127.0.0.1:0"][..], &["backup", "restore", &backup]] {
        let (code, said) = tried(&lab, arguments);
        assert_eq!(code, 4, "{arguments:?}: {said}");
    }
    server.terminate();
    std::fs::write(lab.site.data.join("on-postgresql"), "").unwrap();
    let (code, said) = tried(&lab, &["demo", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 4, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_goes_on_with_what_there_is_makes_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(Kind::Sqlite, &folder.path().join("data")).await;
    let file = folder.path().join("x");
    let file = file.to_str().unwrap();
    for arguments in [
        &["backup", "create", file][..],
        &["backup", "confirm"],
        &["keys", "rotate"],
        &["keys", "destroy", "00000000"],
        &["keys", "export-recovery", file],
        &["audit", "restored", "--note", "x"],
        &["projections", "rebuild", "hosts"],
    ] {
        let output = site.command(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!([Some(1), Some(4)].contains(&output.status.code()), "{arguments:?}: {said}");
        let made: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(made.is_empty(), "{arguments:?}: {made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_forgets_to_name_the_database_is_shown_no_other_log() {
    let lab = Lab::new(Kind::Postgres, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let key = std::fs::read(lab.site.data.join("master.key")).unwrap();
    let generation: Value =
        serde_json::from_str(&lab.site.run(&["keys", "status", "-o", "json"])).unwrap();
    let generation = generation[0]["generation"].as_str().unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["user", "add", "eve"],
        &["keys", "rotate"],
        &["keys", "destroy", generation],
        &["migrate"],
        &["doctor"],
        &["audit", "log"],
    ] {
        let mut command = lab.site.command(arguments);
        let output = command.env_remove("DATABASE_URL").output().unwrap();
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(
            !output.status.success() && said.contains("set DATABASE_URL"),
            "{arguments:?}: {said}"
        );
        assert!(!lab.site.data.join("events.db").exists(), "{arguments:?}");
        assert_eq!(std::fs::read(lab.site.data.join("master.key")).unwrap(), key, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demonstration_is_not_made_of_an_installation() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let before = lab.events().await.len();
    let (code, said) = tried(&lab, &["demo", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no demonstration"), "{said}");
    assert_eq!(lab.events().await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_of_one_directory_ends_with_the_code_of_a_store_that_is_held() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    let (code, said) = tried(&lab, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("another process is using"), "{said}");
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_no_log_can_answer_is_refused() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    for (arguments, code) in [
        (["audit", "log", "--actor", "nobody"], 2),
        (["audit", "log", "--owner", "abc"], 2),
        (["audit", "log", "--type", "nothing"], 2),
        (["audit", "log", "--stream", "application"], 2),
        (["audit", "log", "--after", "99999999"], 5),
        (["audit", "log", "--app", "nginx-0a1b2c3d"], 5),
        (["audit", "log", "--stream", "application/nginx-0a1b2c3d"], 5),
        (["audit", "log", "--request", "0190f3c2-0000-7000-8000-000000000000"], 5),
        (["audit", "replay", "--until", "99999999"], 5),
    ] {
        let (found, said) = tried(&lab, &arguments);
        assert_eq!(found, code, "{arguments:?}: {said}");
    }
    let times = ["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"];
    for bounds in [["--after", "10", "--until", "3"].as_slice(), &times, &["--request", ""]] {
        let (found, said) = tried(&lab, &[&["audit", "log"], bounds].concat());
        assert_eq!(found, 2, "{bounds:?}: {said}");
    }
    let diff = ["audit", "diff", "--app", "nginx-0a1b2c3d", "--from", "99999999"];
    let (code, said) = tried(&lab, &diff);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("no position 99999999"), "{said}");
}

fn change(views: &Path, sql: &str) -> i64 {
    let views = rusqlite::Connection::open(views).unwrap();
    views.execute_batch(sql).unwrap();
    let count = "select (select count(*) from checkpoints) + (select count(*) from hosts)";
    views.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_changes_nothing_and_passes_over_nothing() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let check = ["audit", "replay", "--check"];
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("hosts up to position"), "{said}");

    let views = lab.site.data.join("views.db");
    let left = change(&views, "delete from checkpoints where name = 'hosts'");
    assert!(left > 1);
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 0, "the next start makes it: {said}");
    assert!(said.contains("hosts: there is no such read model yet; it was not compared"), "{said}");
    assert_eq!(change(&views, ""), left, "the check has changed something");

    for end in ["", "-wal", "-shm"] {
        let file = format!("{}{end}", views.display());
        if Path::new(&file).exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    let (code, said) = tried(&lab, &check);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("it was not compared").count(), 6, "{said}");
    assert!(!views.exists(), "the check has made it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_which_only_a_part_is_printed_says_so() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let log = |more: &[&str]| {
        let output = lab.site.command(&[&["audit", "log"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{more:?}: {output:?}");
        [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap())
    };
    let [all, said] = log(&["--stream", "user/1", "-o", "ndjson"]);
    let count = all.lines().count();
    assert!(count > 0 && said.is_empty(), "{all}{said}");
    for form in ["table", "json"] {
        let [part, said] = log(&["--limit", "1", "-o", form]);
        assert!(!part.is_empty());
        assert!(said.contains("more than these 1: go on with --after 1"), "{said}");
        let [_, said] = log(&["-o", form]);
        assert_eq!(said, "", "all of it is printed");
        let [_, said] = log(&["--stream", "user/1", "--limit", &count.to_string(), "-o", form]);
        assert_eq!(said, "", "there is no more of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is_one() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let ended = |arguments: &[&str], out: Stdio| {
        let output = lab.site.command(arguments).stdout(out).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let nobody = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let views = ["projections", "list"].as_slice();
    for command in [
        views,
        &["audit", "log"],
        &["audit", "log", "-o", "csv"],
        &["audit", "log", "-o", "ndjson"],
        &["audit", "replay"],
        &["audit", "replay", "-o", "json"],
        &["catalog", "list"],
        &["doctor"],
        &["openapi"],
        &["completion", "bash"],
        &["--help"],
    ] {
        assert_eq!(ended(command, nobody()), (Some(0), String::new()), "{command:?}");
        let (code, said) = ended(command, full());
        assert_eq!(code, Some(1), "{command:?}: {said}");
        assert!(said.starts_with("proximity: the output cannot be written"), "{command:?}: {said}");
    }
    let (server, _) = lab.start().await;
    server.terminate();
    change(&lab.site.data.join("views.db"), "update checkpoints set position = position + 14");
    let (code, said) = ended(&["audit", "replay", "--check"], nobody());
    assert_eq!(code, Some(6), "a verdict stands, whoever reads it: {said}");
    let once = ["user", "add", "ann"];
    let (code, said) = ended(&once, nobody());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("shown only once"), "nobody else has the password: {said}");
}

/// The same command as somebody who may not write what root may; `None` where that cannot be tried.
fn unprivileged(command: &Command, as_root: bool) -> Option<Command> {
    let mut other = if as_root {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(command.get_program());
        let tried = Command::new("setpriv").args(other.get_args()).arg("--version").output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        other
    } else {
        Command::new(command.get_program())
    };
    other.args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => other.env(key, value),
            None => other.env_remove(key),
        };
    }
    Some(other)
}

/// Nobody may write it any more, or its owner again.
fn lock(folder: &Path, locked: bool) {
    let (inner, outer) = if locked { (0o444, 0o555) } else { (0o644, 0o755) };
    std::fs::set_permissions(folder, Permissions::from_mode(outer)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lock(&path, locked);
        } else {
            std::fs::set_permissions(&path, Permissions::from_mode(inner)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_written_is_read_all_the_same() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let keys: Value = serde_json::from_str(&lab.site.run(&["audit", "key", "-o", "json"])).unwrap();
    let key = keys[0]["public_key"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let as_root = folder.path().metadata().unwrap().uid() == 0;
    let copy = lab.site.copy(&folder.path().join("50% off?")).await;
    let wal = copy.data.join("events.db-wal");
    for file in ["events.db", "views.db"] {
        // Whoever closes it last brings everything into the file.
        let last = rusqlite::Connection::open(copy.data.join(file)).unwrap();
        last.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    }
    assert!(!wal.exists());
    lock(folder.path(), true);
    let tried = |arguments: &[&str]| {
        let mut command = unprivileged(&copy.command(arguments), as_root)?;
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        Some((output.status.code().unwrap(), said.concat()))
    };
    for arguments in [
        ["audit", "log", "--limit", "1000"].as_slice(),
        &["audit", "replay"],
        &["audit", "replay", "--check"],
        &["audit", "verify", "--key", key],
    ] {
        let Some((code, said)) = tried(arguments) else {
            figure!("skipped: root may write everywhere, and setpriv cannot run the program here");
            return;
        };
        assert_eq!(code, 0, "{arguments:?}: {said}");
    }
    let (_, read) = tried(&["audit", "log", "-o", "ndjson"]).unwrap();
    assert_eq!(read, lab.site.run(&["audit", "log", "-o", "ndjson"]));

    lock(folder.path(), false);
    std::fs::write(&wal, "what a server that was killed left").unwrap();
    lock(folder.path(), true);
    for arguments in [["audit", "log"].as_slice(), &["audit", "verify", "--key", key]] {
        let (code, said) = tried(arguments).unwrap();
        assert_eq!(code, 4, "{arguments:?}: {said}");
        assert!(said.contains("events.db-wal") && said.contains("copy both files"), "{said}");
    }
    lock(folder.path(), false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_heads_would_go_nowhere_does_not_start() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    for dir in ["/proc/heads", "/dev/null/heads"] {
        let setting = format!("audit.heads_dir={dir}");
        let serve = ["serve", "--listen", "127.0.0.1:0", "--set", &setting];
        let (code, said) = tried(&lab, &serve);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("audit.heads_dir") && said.contains(dir), "{said}");
    }
}
