//! The command line: what can be said, and the exit code that each outcome has.
#![deny(
    clippy::print_stdout,
    reason = "a reader that goes away makes it panic: stdout::print does not"
)]

mod audit;
mod backup;
mod catalog;
mod demo;
mod doctor;
mod keys;
mod migrate;
pub mod noted;
mod operations;
mod output;
mod progress;
mod projections;
mod serve;
mod stdout;
pub mod user;
mod verify;

use std::future::Future;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use output::Format;

use proximity_eventstore::{Error as StoreError, Store};
use proximity_projections::Views;

use crate::app::install_tls_provider;
use crate::config::{self, Config, Sources};
use crate::http::openapi;
use crate::{logging, stores, undumped};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed; the message says why
  2  the command line is not understood
  3  a setting is wrong or unknown
  4  the store, or the server that holds it, is not available
  5  there is no such thing
  6  a check found something (doctor, projections verify, audit verify, audit replay --check,
     or what is restored does not verify)";

/// What threads that still block are given at the very end.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How a command ended, when not well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("{0}")]
    Config(#[from] config::Error),
    /// Exit code 4.
    #[error("{0}")]
    Unavailable(String),
    /// Exit code 5.
    #[error("{0}")]
    NoSuchThing(String),
    /// Exit code 6.
    #[error("{0}")]
    Found(String),
}

impl Failure {
    /// The standard output stream takes nothing, for another reason than that nobody reads it.
    fn output(error: std::io::Error) -> Self {
        Self::Failed(anyhow::Error::new(error).context("the output cannot be written"))
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failed(error) if error.chain().any(is_unavailable) => 4,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 3,
            Self::Unavailable(_) => 4,
            Self::NoSuchThing(_) => 5,
            Self::Found(_) => 6,
        }
    }
}

/// Whether the store is in other hands, or elsewhere; or whether a server has begun to write what was read
/// as a log that rests: nothing was found out then.
fn is_unavailable(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_held = matches!(
        error.downcast_ref(),
        Some(StoreError::ChangedMeanwhile { .. } | StoreError::Locked { .. })
    );
    is_held || error.is::<stores::Error>()
}

/// Says that a file is not there, before anything is begun with it.
fn must_exist(file: &Path) -> Result<(), Failure> {
    let none = || Failure::NoSuchThing(format!("there is no file {}", file.display()));
    if file.exists() { Ok(()) } else { Err(none()) }
}

/// Deploys applications as LXC containers on Proxmox VE.
#[derive(Debug, Parser)]
#[command(name = "proximity", version, after_help = EXIT_CODES)]
struct Cli {
    /// File with settings, instead of /etc/proximity/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the embedded store and keys
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Sets any setting, e.g. --set server.body_limit=65536
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop (SIGTERM or Ctrl-C)
    Serve {
        /// Address and port, e.g. 127.0.0.1:7800
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
    },
    /// Serve beside a simulated Proxmox VE, ready to try; everything is gone afterwards
    Demo {
        /// Address and port, e.g. 127.0.0.1:7800
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// Print one line of JSON once it is ready
        #[arg(long)]
        json: bool,
    },
    /// Run a simulated Proxmox VE alone
    Simulator {
        /// Where its API is served; loopback only
        #[arg(long, default_value = "127.0.0.1:8006", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Where its ledger and fault script are served; loopback only
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
        control: SocketAddr,
        /// Seeds its random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print one line of JSON once it is ready
        #[arg(long)]
        json: bool,
    },
    /// Accounts
    #[command(subcommand)]
    User(user::Command),
    /// Look at everything that a server needs, and say what is wrong
    Doctor,
    /// Bring the database's schema up to date
    Migrate,
    /// Everything in the database as one file, and back
    #[command(subcommand)]
    Backup(backup::Command),
    /// The master keys: how they stand, replace them, hand them to another machine
    #[command(subcommand)]
    Keys(keys::Command),
    /// How the read models stand; build them anew; verify them
    #[command(subcommand)]
    Projections(projections::Command),
    /// The log as it was written
    #[command(subcommand)]
    Audit(audit::Command),
    /// What is being carried out
    #[command(subcommand)]
    Operations(operations::Command),
    /// What can be deployed
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Print the OpenAPI document
    Openapi,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too and go to the standard output stream.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    ended(&Failure::output(error))
                }
                _ => ExitCode::from(code),
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ended(&failure),
    }
}

/// Says why, and gives the exit code.
fn ended(failure: &Failure) -> ExitCode {
    // Not through the log: a person has to see it whatever RUST_LOG says.
    if let Err(error) = writeln!(std::io::stderr(), "proximity: {failure}") {
        // Nobody reads it any more; how it ended is told by the code all the same.
        tracing::debug!(%error, "the failure could not be told");
    }
    ExitCode::from(failure.code())
}

/// Lets a server on this machine go first: people wait for what it answers. Threads that are started
/// from now on do so, too.
fn give_way() {
    if let Err(error) = rustix::process::nice(19) {
        tracing::debug!(%error, "this command cannot give way to others");
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // Before any setting is read: some of them are secrets.
    undumped::begin()?;
    let sources = cli.sources()?;
    let settings = || config::load(&sources);
    match cli.command {
        Command::Serve { listen } => {
            logging::start(None);
            let mut sources = sources.clone();
            sources.flags.extend(listen.map(|listen| ("server.listen".to_owned(), listen)));
            let config = config::load(&sources)?;
            block_on(serve::run(config))
        }
        Command::Catalog(command) => catalog::run(&command, &settings()?, cli.output),
        Command::Demo { listen, json } => {
            let keep = sources.flags.iter().any(|(key, _)| key == "data.dir");
            let mut sources = sources.clone();
            sources.flags.extend(listen.map(|listen| ("server.listen".to_owned(), listen)));
            block_on(demo::run(config::load(&sources)?, keep, json))
        }
        Command::Simulator { listen, control, seed, json } => {
            block_on(demo::simulator(listen, control, seed, json))
        }
        Command::User(command) => block_on(user::run(command, &settings()?, cli.output)),
        Command::Doctor => {
            give_way();
            block_on(doctor::run(&settings()?, cli.output))
        }
        Command::Migrate => block_on(migrate::run(&settings()?, cli.output)),
        Command::Backup(command) => block_on(backup::run(command, &settings()?, cli.output)),
        Command::Keys(command) => block_on(keys::run(command, &settings()?, cli.output)),
        Command::Projections(command) => {
            give_way();
            block_on(projections::run(command, &settings()?, cli.output))
        }
        Command::Audit(command) => block_on(audit::run(command, &settings()?, cli.output)),
        Command::Operations(command) => {
            block_on(operations::run(command, &settings()?, cli.output))
        }
        Command::Openapi => stdout::print(&openapi::render().map_err(anyhow::Error::from)?),
        Command::Completion { shell } => {
            // Into memory first: what it writes to has to take everything.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "proximity", &mut script);
            stdout::write(&script).map(drop)
        }
    }
}

impl Cli {
    fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = Sources { file: self.config.clone(), ..Sources::from_process() };
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| config::Error::Value {
                key: setting.clone(),
                place: "--set".to_owned(),
                reason: "write it as KEY=VALUE".to_owned(),
            })?;
            sources.flags.push((key.to_owned(), value.to_owned()));
        }
        if let Some(data) = &self.data {
            sources.flags.push(("data.dir".to_owned(), data.to_string_lossy().into_owned()));
        }
        Ok(sources)
    }
}

/// Runs one command to its end; quiet unless something is wrong or `RUST_LOG` asks for more.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    logging::start(Some("warn,sqlx::postgres::notice=error"));
    install_tls_provider();
    let runtime = runtime()?;
    let outcome = runtime.block_on(command);
    // What is recorded is safe, and what still blocks must not hold the end up.
    runtime.shutdown_timeout(LAST_BREATH);
    outcome
}

/// The log for reading, and the views if a server has made them; nothing of either is changed.
async fn opened(config: &Settings) -> Result<(Store, Option<Views>), Failure> {
    let unavailable = |error: stores::Error| Failure::Unavailable(error.to_string());
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let views = stores::views_read_only(config, &store).await.map_err(unavailable)?;
    Ok((store, views))
}

/// The log and the views for reading, beside a running server or alone.
async fn readers(config: &Settings) -> Result<(Store, Views), Failure> {
    let (store, views) = opened(config).await?;
    let none = || Failure::Unavailable("there are no read models: a server builds them".to_owned());
    Ok((store, views.ok_or_else(none)?))
}

/// The same with views that can be built anew and switched.
async fn builders(config: &Settings) -> Result<(Store, Views), Failure> {
    let unavailable = |error: stores::Error| Failure::Unavailable(error.to_string());
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let views = stores::views_beside(config, &store).await.map_err(unavailable)?;
    Ok((store, views))
}

/// The runtime that everything but HTTP's own threads runs on.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Settings of a command that has been parsed; used by the commands.
type Settings = Config;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_changed_while_it_was_read_is_one_that_is_not_available() {
        let changed = || StoreError::ChangedMeanwhile { path: "events.db".into() };
        let told = anyhow::Error::from(changed()).context("the log cannot be read");
        assert_eq!(Failure::from(told).code(), 4);
        assert_eq!(Failure::from(anyhow::Error::from(StoreError::Closed)).code(), 1);
    }
}
