//! The real binary as a process: started, awaited until ready, stopped or killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::database::{Database, Kind};
use crate::ports::Port;

/// Where the built `proximity` binary lies, beside the running test.
pub fn binary() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let path = folder.join("proximity");
    assert!(path.exists(), "{} is missing: run `cargo build --bin proximity`", path.display());
    path
}

/// A place of its own for one server: data directory, database, address.
pub struct Site {
    pub kind: Kind,
    pub data: PathBuf,
    pub listen: String,
    port: Arc<Port>,
    database: Option<Database>,
    extra: Vec<(String, String)>,
}

impl Site {
    /// A new, empty site on the store that is asked for.
    pub async fn new(kind: Kind, data: &Path) -> Self {
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(Database::create().await),
        };
        let port = Arc::new(Port::claim());
        let listen = format!("127.0.0.1:{}", port.number);
        Self { kind, data: data.to_owned(), listen, port, database, extra: Vec::new() }
    }

    /// A second server on the same database, with an address and data directory of its own.
    pub fn replica(&self, data: &Path) -> Self {
        let port = Arc::new(Port::claim());
        Self {
            kind: self.kind,
            data: data.to_owned(),
            listen: format!("127.0.0.1:{}", port.number),
            port,
            database: self.database.as_ref().map(|database| Database { url: database.url.clone() }),
            extra: self.extra.clone(),
        }
    }

    /// Another place with the same files and the same rows; nothing may be using this one.
    pub async fn copy(&self, data: &Path) -> Self {
        copy_folder(&self.data, data);
        let database = match &self.database {
            None => None,
            Some(database) => Some(database.copy().await),
        };
        let extra = self.extra.clone();
        Self {
            kind: self.kind,
            data: data.to_owned(),
            listen: self.listen.clone(),
            port: self.port.clone(),
            database,
            extra,
        }
    }

    /// Sets a setting through the environment for every command run here.
    pub fn set(&mut self, key: &str, value: &str) {
        self.extra.push((key.to_owned(), value.to_owned()));
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The database's address on PostgreSQL.
    pub fn database_url(&self) -> Option<&str> {
        self.database.as_ref().map(|database| database.url.as_str())
    }

    /// A `proximity` command on this site, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--data").arg(&self.data).stdin(Stdio::null());
        command.env_remove("DATABASE_URL");
        if let Some(url) = self.database_url() {
            command.env("DATABASE_URL", url);
        }
        for (key, value) in &self.extra {
            command.env(key, value);
        }
        command
    }

    /// Runs a command to its end; panics with its output when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "proximity {arguments:?} ended with {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts `proximity serve` and returns once `/readyz` says so.
    pub async fn serve(&self) -> Server {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data.join("server.log"))
            .unwrap();
        let child = self
            .command(&["serve", "--listen", &self.listen])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Server { child, log: self.data.join("server.log") };
        server.ready(&self.url()).await;
        server
    }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, name) = (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().file_name());
        if entry.is_dir() {
            copy_folder(&entry, &to.join(name));
        } else if entry.is_file() {
            // Permissions come along: the master key must stay its owner's.
            std::fs::copy(&entry, to.join(name)).unwrap();
        }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    async fn ready(&mut self, url: &str) {
        let client = crate::http::plain();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(answer) = client.get(format!("{url}/readyz")).send().await
                && answer.status().is_success()
            {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the server is not ready ({ended:?}):\n{}",
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns how long the graceful end took. Panics past 30 s or on a failure.
    pub fn terminate(mut self) -> Duration {
        let started = Instant::now();
        let sent = Command::new("kill").arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the server ended with {status}");
        started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}
