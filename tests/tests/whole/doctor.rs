//! `proximity doctor` against a Proxmox VE whose role lacks one privilege after another, and on damage to
//! a database file that no read of it shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::{Answer, Client};
use proximity_tests::lab::Lab;
use proximity_tests::process::Site;
use serde_json::{Value, json};

const USER: &str = "proximity@pve";
const TOKEN: &str = "proximity@pve!server";
const ROLE: &str = "Proximity";

/// The privileges of the role, as the guide for operators has them pasted into a shell.
fn documented() -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATING.md");
    let text = std::fs::read_to_string(guide).unwrap();
    let list = text.split("pveum role add Proximity --privs \"").nth(1).unwrap();
    let list = list.split('"').next().unwrap().replace('\\', " ");
    list.split_whitespace().map(str::to_owned).collect()
}

/// The cluster, registered with a token that has the documented role.
async fn registered(lab: &Lab, client: &Client, role: &[&str]) {
    lab.simulator.add_role(ROLE, role);
    let _password = lab.simulator.add_user(USER);
    let credential = lab.simulator.add_token(USER, "server", true).unwrap();
    lab.simulator.grant("/", USER, ROLE);
    lab.simulator.grant("/", TOKEN, ROLE);
    let change = json!({
        "token_id": TOKEN, "token_secret": credential.split_once('=').unwrap().1,
    });
    let answer = client
        .try_call(reqwest::Method::PUT, "/api/proxmox/hosts/1", Some(&change), &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// All that the doctor says, and whether it ended as if all were well.
fn findings(lab: &Lab) -> (Vec<Value>, bool) {
    let output = lab.site.command(&["doctor", "-o", "json"]).output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (findings, output.status.success())
}

/// What the doctor finds wrong, and whether it ended as if all were well.
fn wrong(lab: &Lab) -> (Vec<String>, bool) {
    let (findings, well) = findings(lab);
    let wrong = findings
        .iter()
        .filter(|finding| finding["well"] == false)
        .map(|finding| finding["found"].as_str().unwrap().to_owned());
    (wrong.collect(), well)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_each_privilege_that_is_missing_and_what_does_not_work_without_it() {
    let lab = Lab::new(Kind::Sqlite, 2).await;
    let (server, client) = lab.start().await;
    let role = documented();
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    registered(&lab, &client, &role).await;
    let (all, well) = wrong(&lab);
    assert!(well && all.is_empty(), "the documented role is enough: {all:#?}");
    // More than the role has to have: named, and nothing wrong.
    let extra =
        "Datastore.Allocate is missing on /storage/local-btrfs: disks that a creation leaves";
    let names_extra = || {
        let (said, well) = findings(&lab);
        assert!(well, "{said:#?}");
        said.iter().any(|said| said["found"].as_str().unwrap().contains(extra))
    };
    assert!(names_extra());
    let more: Vec<&str> = role.iter().copied().chain(["Datastore.Allocate"]).collect();
    lab.simulator.add_role(ROLE, &more);
    assert!(!names_extra());
    lab.simulator.add_role(ROLE, &role);
    lab.simulator.set_retention("local", Some("keep-last=3")).unwrap();
    let (said, well) = findings(&lab);
    let warned: Vec<_> = said.iter().filter(|said| said["check"] == "backup storage").collect();
    assert!(well && warned.len() == 1, "{warned:#?}");
    assert!(warned[0]["found"].as_str().unwrap().contains("storage local keeps only keep-last=3"));
    lab.simulator.set_retention("local", None).unwrap();
    lab.simulator.set_content("local-btrfs", &["rootdir"]).unwrap();
    let (said, well) = findings(&lab);
    let warned: Vec<_> = said.iter().filter(|said| said["check"] == "root disk storage").collect();
    assert!(well && warned.len() == 1, "{warned:#?}");
    assert!(warned[0]["found"].as_str().unwrap().contains("storage local-btrfs does not take"));
    lab.simulator.set_content("local-btrfs", &["rootdir", "images"]).unwrap();

    for missing in &role {
        let rest: Vec<&str> = role.iter().filter(|name| *name != missing).copied().collect();
        lab.simulator.add_role(ROLE, &rest);
        let (found, well) = wrong(&lab);
        assert!(!well, "without {missing} all is said to be well");
        let named: Vec<_> = found.iter().filter(|line| line.contains(" is missing on /")).collect();
        assert!(!named.is_empty(), "without {missing}: {found:#?}");
        for line in named {
            let (_, sentence) = line.split_once(": ").unwrap();
            assert!(sentence.starts_with(&format!("{missing} is missing on /")), "{line}");
            let (_, without) = sentence.split_once(": ").expect("what does not work stands there");
            assert!(without.len() > 10, "{line}");
        }
    }

    // On one storage alone.
    lab.simulator.add_role(ROLE, &role);
    lab.simulator.add_role("Reader", &["Datastore.Audit"]);
    lab.simulator.grant("/storage/local-btrfs", TOKEN, "Reader");
    let (found, _) = wrong(&lab);
    let only = "lab: Datastore.AllocateSpace is missing on /storage/local-btrfs: ";
    assert!(found.len() == 1 && found[0].starts_with(only), "{found:#?}");
    figure!("proximity doctor: {} privileges taken away one by one, each named", role.len());
    server.terminate();
}

/// Makes an index anew without the first row, as a write that was lost would leave it.
fn damage(file: &Path, index: &str) {
    let rewrite = |sql: &str| {
        let sql = format!(
            "pragma writable_schema = on; update sqlite_schema set sql = {sql} where name = '{index}'"
        );
        rusqlite::Connection::open(file).unwrap().execute_batch(&sql).unwrap();
    };
    rewrite("sql || ' where position > 1'");
    let rebuild = format!("reindex {index}");
    rusqlite::Connection::open(file).unwrap().execute_batch(&rebuild).unwrap();
    rewrite("replace(sql, ' where position > 1', '')");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_row_that_an_index_lacks() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (found, well) = wrong(&lab);
    assert!(well, "{found:#?}");
    let files =
        |findings: &[Value]| findings.iter().filter(|one| one["check"] == "database file").count();
    assert_eq!(files(&findings(&lab).0), 1, "the log; no server has made read models");
    let file = lab.site.data.join("events.db");
    damage(&file, "events_actor");
    let hidden =
        lab.site.run(&["audit", "log", "--actor", "system/cli", "--until", "1", "-o", "ndjson"]);
    assert_eq!(hidden, "", "the index hides the event from whoever looks for its actor");
    let (found, well) = wrong(&lab);
    assert!(!well && found.len() == 1, "{found:#?}");
    assert!(found[0].contains("events.db is damaged"), "{found:#?}");
    assert!(found[0].contains("missing from index events_actor"), "{found:#?}");
    rusqlite::Connection::open(&file).unwrap().execute_batch("reindex").unwrap();
    let (found, well) = wrong(&lab);
    assert!(well, "as the guide for operators says: {found:#?}");
}

/// All files below a folder, but those that SQLite itself needs to read a log.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() });
    let is_sqlites = |end: &std::ffi::OsStr| end == "db-wal" || end == "db-shm";
    let is_ours = |path: &PathBuf| !path.extension().is_some_and(is_sqlites);
    all.filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_makes_no_key_and_no_folder() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let site = Site::new(kind, &data).await;
        site.run(&["migrate"]);
        if kind == Kind::Postgres {
            std::fs::remove_dir_all(&data).unwrap();
        }
        let before = files(folder.path());
        // The role of the tests may change what is stored, which is a finding.
        let output = site.command(&["doctor", "-o", "json"]).output().unwrap();
        let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let keys: Vec<&Value> = said.iter().filter(|said| said["check"] == "master key").collect();
        assert!(keys.len() == 1 && keys[0]["well"] == true, "{said:#?}");
        assert_eq!(keys[0]["found"], "there is no key yet: a server makes one");
        assert_eq!(files(folder.path()), before);
        assert_eq!(data.exists(), kind == Kind::Sqlite);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_rows_that_are_ahead_of_the_log_or_not_whole() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    let (found, well) = wrong(&lab);
    assert!(well, "{found:#?}");
    let change = |sql: &str| {
        let views = rusqlite::Connection::open(lab.site.data.join("views.db")).unwrap();
        views.execute_batch(sql).unwrap();
    };
    change("update filling set whole_at = whole_at + 1000");
    let (found, well) = wrong(&lab);
    assert!(!well && !found.is_empty(), "{found:#?}");
    assert!(found.iter().all(|one| one.contains("it is being filled")), "{found:#?}");

    change("update checkpoints set position = position + 2000 where name = 'hosts'");
    change("update filling set whole_at = 0");
    let (found, well) = wrong(&lab);
    assert!(!well && found.len() == 1, "{found:#?}");
    assert!(found[0].contains("hosts is 0 events behind: its rows are ahead of the log"));
    let verified = lab.site.command(&["projections", "verify", "hosts"]).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert_eq!(verified.status.code(), Some(6), "{said}");
    assert!(said.contains("`proximity projections rebuild hosts`"), "{said}");
    let listed = lab.site.run(&["projections", "list"]);
    assert!(listed.contains("ahead of the log"), "{listed}");

    let server = lab.site.serve().await;
    let client = Client::login(&lab.site.url(), &lab.admin, &lab.password).await;
    lab.settle(&client, Duration::from_secs(20)).await;
    server.terminate();
    let (found, well) = wrong(&lab);
    assert!(well, "a server that starts mends it: {found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_misses_heads_that_were_published() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let lab = Lab::new(kind, 1).await;
        let (server, client) = lab.start().await;
        let [heads, away] = ["heads", "away"].map(|name| lab.site.data.join(name));
        // The first heads are there, and the database knows of them.
        let is_sealed = |answer: &Answer| heads.exists() && answer.body["seals"] == "sealed";
        client.wait_until("/api/health", Duration::from_secs(20), is_sealed).await;
        let seals = || {
            let said = findings(&lab).0.into_iter().find(|one| one["check"] == "seals").unwrap();
            (said["well"] == true, said["found"].as_str().unwrap().to_owned())
        };
        let look = || {
            assert!(seals().0, "{:?}", seals());
            std::fs::rename(&heads, &away).unwrap();
            let (well, said) = seals();
            assert!(!well && said.contains("the database says that they went up to"), "{said}");
            std::fs::create_dir(&heads).unwrap();
            assert!(!seals().0, "nothing is in it");
            std::fs::remove_dir(&heads).unwrap();
            std::os::unix::fs::symlink("/nowhere/at/all", &heads).unwrap();
            assert!(!seals().0, "it is nowhere");
            std::fs::remove_file(&heads).unwrap();
            std::fs::write(&heads, "a file").unwrap();
            let (well, said) = seals();
            assert!(!well && said.contains("cannot be read"), "{said}");
            std::fs::remove_file(&heads).unwrap();
            std::fs::rename(&away, &heads).unwrap();
            assert!(seals().0, "{:?}", seals());
        };
        look();
        server.terminate();
        look();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_events_that_nobody_can_seal_and_heads_that_are_missed_in_the_middle() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    for account in ["ann", "bob", "eve"] {
        lab.site.run(&["user", "add", account]);
    }
    let (found, well) = wrong(&lab);
    assert!(well, "{found:#?}");
    let heads = files(&lab.site.data.join("heads"));
    let mut heads = heads.into_iter().filter(|file| file.extension().unwrap() == "heads");
    let file = heads.nth(1).unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    let (found, _) = wrong(&lab);
    assert!(found.len() == 1 && found[0].contains("are not all there"), "{found:#?}");
    std::fs::write(&file, whole).unwrap();
    // Whoever may only add events can do this, with a time that is years off.
    let log = rusqlite::Connection::open(lab.site.data.join("events.db")).unwrap();
    let head: u64 =
        log.query_row("select max(position) from events", [], |row| row.get(0)).unwrap();
    let added = "insert into events select position + 3, 'call', '99', 1, event_type, event_version, payload, \
        metadata, recorded_at + 1576800000000000 from events where position = ?1";
    log.execute(added, [head]).unwrap();
    let (found, _) = wrong(&lab);
    let said = format!("there are no events {} to {}, and others stand behind", head + 1, head + 2);
    assert!(found.iter().any(|found| found.contains(&said)), "{found:#?}");
    let verified = lab.site.command(&["audit", "verify"]).output().unwrap();
    let text = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert_eq!(verified.status.code(), Some(6), "{text}");
    assert!(text.contains(&format!("removed at position {}", head + 1)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_no_server_made_is_named_until_it_is_gone() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, client) = lab.start().await;
    // Whoever may add rows can do this, without a key: nothing would be sealed any more.
    let log = rusqlite::Connection::open(lab.site.data.join("events.db")).unwrap();
    log.busy_timeout(Duration::from_secs(10)).unwrap();
    let added = "insert into seals select block + 1, last_position + 1, 4611686018427387904, x'', hash, '00', x'', \
        sealed_at, incarnation from seals order by block desc limit 1";
    log.execute(added, []).unwrap();
    lab.site.run(&["user", "add", "eve"]);
    let until = async |seals: &str, status: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let health = client.get("/api/health").await.body;
            if health["seals"] == seals && health["status"] == status {
                break;
            }
            assert!(Instant::now() < deadline, "{health}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until("failing", "degraded").await;
    let (found, well) = wrong(&lab);
    let said = "to 4611686018427387904, does not follow the one before it";
    assert!(!well && found.iter().any(|found| found.contains(said)), "{found:#?}");
    log.execute("delete from seals where last_position = 4611686018427387904", []).unwrap();
    until("sealed", "healthy").await;
    server.terminate();
    lab.site.run(&["audit", "verify"]);
    let (found, well) = wrong(&lab);
    assert!(well, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_a_draft_of_the_key_file_and_the_next_start_removes_it() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let draft = lab.site.data.join(".master.key.3b0c6f0e-6c1c-4b58-8e0b-0d7c3f0f5a11");
    std::fs::copy(lab.site.data.join("master.key"), &draft).unwrap();
    let (found, well) = wrong(&lab);
    assert!(!well && found.len() == 1 && found[0].contains(draft.to_str().unwrap()), "{found:#?}");
    let (server, _) = lab.start().await;
    assert!(!draft.exists());
    server.terminate();
    let (found, well) = wrong(&lab);
    assert!(well, "{found:#?}");
}
