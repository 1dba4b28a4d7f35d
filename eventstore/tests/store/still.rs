//! A log that rests is read without writing beside it, and a server that starts meanwhile is noticed.

use proximity_eventstore::{
    Error, Expected, HeadsDir, Options, Store, Trusted, sqlite_file, verify,
};
use tempfile::TempDir;

use crate::child::{Second, ready};
use crate::sealing::{check, kinds, new_key, sealed_to, sealing};
use crate::support::{Home, one};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_log_that_a_server_began_to_write_while_it_was_read() {
    // What a server writes stays beside the file at first, and is in it once the server has stopped.
    for what in ["runs", "stopped"] {
        let (home, key, outside) = (Home::sqlite(), new_key(), TempDir::new().unwrap());
        let store = home.open().await;
        store.seal_with(sealing(&key, outside.path())).unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        sealed_to(&store, 1).await;
        store.close().await;
        let connection = rusqlite::Connection::open(sqlite_file(home.dir())).unwrap();
        connection.query_row("pragma wal_checkpoint(truncate)", (), |_| Ok(())).unwrap();
        // A copy, of which this process has nothing open.
        let copy = TempDir::new().unwrap();
        std::fs::copy(sqlite_file(home.dir()), sqlite_file(copy.path())).unwrap();
        // Where no index of the write-ahead log can be made, the file alone is read.
        let mut index = sqlite_file(copy.path()).into_os_string();
        index.push("-shm");
        std::os::unix::fs::symlink("/nowhere/at/all", &index).unwrap();
        let reader = Store::open_read_only(Options::sqlite(copy.path())).await.unwrap();
        assert_eq!(kinds(&check(&reader, &key, outside.path()).await), []);
        std::fs::remove_file(&index).unwrap();
        let argument = format!("{what}\n{}", copy.path().display());
        let mut server = Second::start("begin-to-write", &argument);
        let trusted = Trusted::new([key.verifying_key()]);
        let heads = Some(HeadsDir::new(outside.path()));
        let verified = verify(&reader, &trusted, heads, |_| {}).await;
        for refused in [verified.map(drop), reader.feed(0, 9).await.map(drop)] {
            assert!(matches!(refused, Err(Error::ChangedMeanwhile { .. })), "{what}: {refused:?}");
        }
        server.go();
        server.result();
    }
}

/// Arguments: whether the server goes on, and where the log is.
pub async fn begin_to_write(argument: &str) -> serde_json::Value {
    let (what, dir) = argument.split_once('\n').unwrap();
    let store = Store::open(Options::sqlite(dir)).await.unwrap();
    store.append(one("a", Expected::At(1))).await.unwrap();
    if what == "stopped" {
        store.clone().close().await;
    }
    ready();
    serde_json::Value::Null
}
