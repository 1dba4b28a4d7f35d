//! Log lines: for people on a terminal, JSON everywhere else; `RUST_LOG` chooses what is told.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is told when `RUST_LOG` says nothing.
const DEFAULT: &str =
    "info,sqlx=warn,sqlx::postgres::notice=error,actix_server=warn,actix_http=warn";

/// Starts logging to the standard error stream; a second call changes nothing.
pub fn start(default: Option<&str>) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(default.unwrap_or(DEFAULT)));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lossy(std::io::stderr()))
        .log_internal_errors(false);
    let started = if std::io::stderr().is_terminal() {
        builder.compact().try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// A line that cannot be written is lost: a full disk or a reader that has gone is no reason to fail what
/// the line is about.
struct Lossy(std::io::Stderr);

impl std::io::Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // There is nowhere left to tell it.
        self.0.write(bytes).or(Ok(bytes.len()))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().or(Ok(()))
    }
}
