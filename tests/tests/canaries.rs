//! Secrets that are known to the test, in a broad story on the real program that tells everything it
//! can tell: afterwards they stand nowhere but where they are meant to be shown, once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "canaries/debug.rs"]
mod debug;
#[path = "canaries/site.rs"]
mod site;
#[path = "canaries/story.rs"]
mod story;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proximity_tests::canary::{ENCODINGS, Hit, Search, Searched, control};
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::process::{Site, binary};

use self::site::Place;
use self::story::{Story, Told};

/// What a server that runs shows of itself.
fn process(search: &Search, pid: u32, searched: &mut Searched) {
    for what in ["cmdline", "environ", "status", "limits", "mountinfo"] {
        // A process that is closed to others may refuse its environment, which tells nothing either.
        match std::fs::read(format!("/proc/{pid}/{what}")) {
            Ok(bytes) => search.bytes(&format!("/proc/PID/{what}"), &bytes, searched),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{what}"),
        }
    }
}

/// Whether a name that is no secret is found where it stands: else those sinks were not read.
async fn what_is_public_is_found(place: &Place, public: &str, texts: &[(String, Vec<u8>)]) {
    let search = Search::new(&[("a name".to_owned(), public.as_bytes().to_vec())]);
    let mut searched = Searched::default();
    for (sink, text) in texts {
        search.bytes(sink, text, &mut searched);
    }
    place.search(&search, &mut searched).await;
    let files: &[&str] = match place.database {
        None => &["data/events.db"],
        Some(_) => &["/base/", "/pg_wal/", "pg_dump"],
    };
    let told = [
        "reply to POST /api/users",
        "reply to GET /api/audit/events",
        "event stream",
        "output of proximity audit log --limit 100000 -o table",
        "output of proximity audit log --limit 100000 -o json",
        "output of proximity audit log --limit 100000 -o csv",
    ];
    for sink in files.iter().chain(&told) {
        let is_found = searched.hits.iter().any(|hit| hit.sink.contains(sink));
        assert!(is_found, "what stands in {sink} for all to see is not found");
    }
}

/// Hits that are no leak: the place is there to show the secret.
fn is_meant(hit: &Hit, meant: &[(String, String)]) -> bool {
    meant.iter().any(|(secret, sink)| hit.secret == *secret && hit.sink.contains(sink.as_str()))
}

async fn secrets_stand_nowhere(kind: Kind) {
    let place = Place::new(kind).await;
    let server = place.site.serve().await;
    let mut story = Story::begin(&place).await;
    story.go_on().await;
    let Told { secrets, texts, meant, public } = story.end().await;
    let search = Search::new(&secrets);

    let mut searched = Searched::default();
    for (sink, text) in &texts {
        search.bytes(sink, text, &mut searched);
    }
    process(&search, server.pid(), &mut searched);
    // Once while the server runs, with the journals of its databases beside them, and once more when
    // all of it was written and folded together.
    place.search(&search, &mut searched).await;
    server.terminate();
    place.search(&search, &mut searched).await;

    what_is_public_is_found(&place, &public, &texts).await;

    let (shown, hits): (Vec<_>, Vec<_>) =
        searched.hits.iter().partition(|hit| is_meant(hit, &meant));
    let (planted, found) = control(&search, &secrets, place.scratch());
    figure!(
        "secret canaries, {kind:?}: {} secrets × {} encodings in {} sinks ({} MB, {} compressed streams): \
         {} hits, {} places that are meant to show one do; {found} of {planted} planted ones found",
        search.secrets(),
        ENCODINGS.len(),
        searched.sinks,
        searched.bytes >> 20,
        searched.streams,
        hits.len(),
        meant.len(),
    );
    assert!(hits.is_empty(), "{hits:#?}");
    for (secret, sink) in &meant {
        let is_shown = shown.iter().any(|hit| hit.secret == *secret && hit.sink.contains(sink));
        assert!(is_shown, "{secret} does not stand in {sink}: is it looked for as it is written?");
    }
    assert_eq!(found, planted, "the search misses what it is there to find");
    // The sinks that matter most were there.
    let log = std::fs::metadata(place.site.data.join("server.log")).unwrap().len();
    assert!(log > 1_000_000, "{log} bytes are no log that tells everything");
    assert!(searched.sinks > 60, "{} sinks", searched.sinks);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stand_nowhere_in_files_replies_logs_and_processes_sqlite() {
    secrets_stand_nowhere(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stand_nowhere_in_files_replies_logs_and_processes_postgres() {
    secrets_stand_nowhere(Kind::Postgres).await;
}

/// Starts something with core files allowed, ends it by a signal that asks for one, and says whether
/// it left one.
fn leaves_a_core(folder: &Path, program: &str, ready: impl FnOnce(u32)) -> bool {
    let script = format!("ulimit -c unlimited && exec {program}");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    ready(child.id());
    let sent = Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
    status.core_dumped()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_leaves_no_core_file() {
    let folder = tempfile::tempdir().unwrap();
    let (cores, data) = (folder.path().join("cores"), folder.path().join("data"));
    std::fs::create_dir(&cores).unwrap();
    std::fs::create_dir(&data).unwrap();
    let site = Site::new(Kind::Sqlite, &data).await;
    let program =
        format!("{} serve --data {} --listen {}", binary().display(), data.display(), site.listen);
    let server = leaves_a_core(&cores, &program, |_| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::net::TcpStream::connect(&site.listen).is_err() {
            assert!(std::time::Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    // The same signal to a program that does nothing about it, as control.
    let other = leaves_a_core(&cores, "sleep 60", |pid| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
            assert!(std::time::Instant::now() < deadline, "the control does not start");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    figure!(
        "core files after SIGABRT: {} of the server, {} of a program without the protection",
        u8::from(server),
        u8::from(other)
    );
    assert!(!server, "the server's memory was written to a core file");
    assert!(other, "this machine writes no core files at all: the test shows nothing");
}

#[test]
fn no_type_shows_a_secret_when_it_is_printed() {
    debug::no_type_shows_a_secret();
}
