//! The settings of a process: flags over environment over file over default, each key known by name.

mod keys;
mod load;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use proximity_commands::Secret;
use rustix::fs::Access;

pub use keys::{KEYS, Key};
pub use load::{Sources, load};

/// Why the settings cannot be used; the message names the key and where it stands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such key; a slip in a name must not pass silently as a default.
    #[error("{place}: there is no setting {key}{}", hint(.near))]
    UnknownKey { key: String, place: String, near: Option<&'static str> },
    /// The value does not parse.
    #[error("{place}: {key}: {reason}")]
    Value { key: String, place: String, reason: String },
    /// A file that was named cannot be read.
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {reason}")]
    Syntax { path: PathBuf, reason: String },
}

fn hint(near: &Option<&'static str>) -> String {
    near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// Whether somebody may make an account without an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    Closed,
    Open,
}

/// A closed range of numbers, written `8100-8999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    pub last: u32,
}

/// Everything that can be set; printing it shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the embedded store, the keys and the setup token live.
    pub data: PathBuf,
    /// PostgreSQL; `None` is the embedded store. It may carry a password.
    pub database_url: Option<Secret>,
    /// Whether a server that starts may bring the schema up to date.
    pub migrate: bool,
    /// `None` is `master.key` in the data directory.
    pub master_key_file: Option<PathBuf>,
    pub server: Server,
    pub registration: Registration,
    pub public_ports: Range,
    pub internal_ports: Range,
    pub vmids: Range,
    pub proxmox_concurrency: u32,
    pub publish: Publish,
    /// A folder whose files stand in for the embedded catalog.
    pub catalog_dir: Option<PathBuf>,
    /// Where the heads of the sealed log are published; `None` is `heads` in the data directory.
    pub heads_dir: Option<PathBuf>,
}

/// How HTTP is served.
#[derive(Debug, Clone)]
pub struct Server {
    /// `address:port`; port 0 picks a free one.
    pub listen: String,
    /// Origin under which people reach us, when a proxy stands in front.
    pub public_url: Option<url::Url>,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call us with credentials.
    pub cors_origins: Vec<String>,
    /// Bytes of a request's body.
    pub body_limit: usize,
    /// Threads that serve HTTP; 0 means one per core, at most eight.
    pub workers: usize,
    /// Connections that are served at once, over all threads.
    pub max_connections: usize,
    /// Requests that are worked on at once; more are answered 503.
    pub max_requests: usize,
    /// PEM files; both or none.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Bearer token with which `/metrics` may be read from elsewhere than this machine.
    pub metrics_token: Option<Secret>,
}

/// Whether and where applications' public ports are listened on.
#[derive(Debug, Clone)]
pub struct Publish {
    pub enabled: bool,
    pub bind: IpAddr,
    /// Name or address in an application's `url`; `None` is the address it is bound to.
    pub host: Option<String>,
    /// Connections to all published ports at once.
    pub max_connections: usize,
}

impl Config {
    /// The directory of the embedded store and keys, made if it is missing, for this user only.
    pub fn ensure_data(&self) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        if self.data.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data)
            .map_err(|source| Error::File { path: self.data.clone(), source })
    }

    /// Why the data directory is not for its owner only.
    pub fn open_to_others(&self) -> std::io::Result<Option<String>> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&self.data)?.permissions().mode() & 0o777;
        let path = self.data.display();
        let why = || format!("{path} may be read by others (mode {mode:o}): run chmod 700 on it");
        Ok((mode & 0o077 != 0).then(why))
    }

    /// Makes the directory of the heads where one is named, and asks whether it takes files: nobody
    /// names one to find out in an emergency that nothing was ever put there.
    pub fn ensure_heads(&self) -> Result<(), Error> {
        let Some(dir) = &self.heads_dir else { return Ok(()) };
        // Asked, not tried: where nothing can be taken away, a trial would stay.
        let usable = std::fs::create_dir_all(dir)
            .and_then(|()| Ok(rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK)?));
        usable.map_err(|error| Error::Value {
            key: "audit.heads_dir".into(),
            place: "settings".into(),
            reason: format!("{} takes no files: {error}", dir.display()),
        })
    }
}

impl Default for Config {
    /// What stands in [`KEYS`] as default, so that documentation and behaviour are one.
    fn default() -> Self {
        let mut config = Self::blank();
        for key in KEYS {
            if !key.default.is_empty() {
                // A default that does not parse is a defect that the tests of this module show.
                if let Err(reason) = (key.set)(&mut config, key.default) {
                    panic!("the default of {} does not parse: {reason}", key.name);
                }
            }
        }
        config
    }
}

impl Config {
    fn blank() -> Self {
        let none = Range { first: 0, last: 0 };
        Self {
            data: PathBuf::new(),
            database_url: None,
            migrate: true,
            master_key_file: None,
            server: Server {
                listen: String::new(),
                public_url: None,
                trusted_proxies: Vec::new(),
                cors_origins: Vec::new(),
                body_limit: 0,
                workers: 0,
                max_connections: 0,
                max_requests: 0,
                tls_certificate: None,
                tls_key: None,
                metrics_token: None,
            },
            registration: Registration::Closed,
            public_ports: none,
            internal_ports: none,
            vmids: none,
            proxmox_concurrency: 0,
            publish: Publish {
                enabled: false,
                bind: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                host: None,
                max_connections: 0,
            },
            catalog_dir: None,
            heads_dir: None,
        }
    }
}

#[cfg(test)]
mod tests;
