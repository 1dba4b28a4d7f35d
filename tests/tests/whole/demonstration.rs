//! `proximity demo` as README.md shows it first: what the doctor says of it, and that nothing stays.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proximity_tests::process::binary;
use serde_json::Value;

/// One that is kept in a directory, once it is ready.
fn kept(data: &Path) -> (Child, Value) {
    let mut demo = Command::new(binary());
    demo.args(["demo", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    let mut demo = demo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(demo.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    (demo, serde_json::from_str(&ready).expect("it is ready"))
}

fn ended(mut demo: Child) {
    let sent = Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    assert!(sent.success() && demo.wait().unwrap().success());
}

#[test]
fn a_demonstration_that_was_kept_starts_without_its_read_models() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, first) = kept(folder.path());
    ended(demo);
    for end in ["", "-wal", "-shm"] {
        let file = folder.path().join(format!("views.db{end}"));
        assert!(std::fs::remove_file(file).is_ok() || !end.is_empty());
    }
    let (demo, second) = kept(folder.path());
    ended(demo);
    assert_eq!(first["password"], second["password"]);
}

#[test]
fn a_demonstration_is_well_says_nothing_of_those_who_look_and_leaves_nothing() {
    let mut demo = Command::new(binary());
    demo.args(["demo", "--json", "--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(demo.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let data = ready["data_dir"].as_str().unwrap();

    for look in [&["doctor"][..], &["audit", "verify"], &["audit", "replay", "--check"]] {
        let looked = Command::new(binary()).args(look).args(["--data", data]).output().unwrap();
        assert!(looked.status.success(), "{look:?}: {}", String::from_utf8_lossy(&looked.stdout));
    }

    let sent = Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    assert!(sent.success() && demo.wait().unwrap().success());
    let mut said = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    assert!(!Path::new(data).exists());
}
