//! `proximity audit`: the log as it was written, and the past as the log tells it.

mod diff;
mod log;
mod moment;
mod replay;
mod trace;

use super::output::Format;
use super::{Failure, Settings, verify};

/// What can be asked of the log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print events in their order; ndjson and csv are written as they are read
    Log(log::Args),
    /// Print the state as it was at a moment; or check the log, and the read models against it
    Replay(replay::Args),
    /// Print what one request brought about: events, operations, calls, tasks and their logs
    Trace(trace::Args),
    /// Say what changed of an application between two moments, and who changed it
    Diff(diff::Args),
    /// Whether the log is as it was sealed: its stored bytes, the chain over them, the published heads
    Verify(verify::Wanted),
    /// Print the public keys with which the log can be verified elsewhere
    Key,
    /// Say that the log was restored from a backup on purpose, or that heads were lost, while no server
    /// runs
    Restored {
        /// What was restored or lost, and why; it is kept beside the heads
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// Also when the log is not as it was sealed: what is wrong is signed, and shown for ever;
        /// heads that are gone are no longer missed
        #[arg(long)]
        accept_breaks: bool,
    },
}

/// Reads the log, beside a running server or alone.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    match command {
        Command::Log(args) => log::run(args, config, format).await,
        Command::Replay(args) => replay::run(args, config, format).await,
        Command::Trace(args) => trace::run(args, config, format).await,
        Command::Diff(args) => diff::run(args, config, format).await,
        Command::Verify(wanted) => verify::run(wanted, config, format).await,
        Command::Key => verify::show_keys(config, format).await,
        Command::Restored { note, accept_breaks } => {
            verify::restored(&note, accept_breaks, config, format).await
        }
    }
}
