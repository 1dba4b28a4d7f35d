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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.compact().try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
