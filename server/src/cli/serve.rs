//! `proximity serve`: from start to the graceful end.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Settings};
use crate::app::App;
use crate::{http, setup, stores};

/// Within which the process has ended after it was told to.
const END_WITHIN: Duration = Duration::from_secs(29);

/// Serves until SIGTERM or SIGINT; a second signal ends at once.
pub async fn run(config: Settings) -> Result<(), Failure> {
    config.ensure_heads()?;
    let mut stop = Stop::listen()?;
    let app =
        App::start(config).await.map_err(|error| match error.downcast::<stores::Error>() {
            Ok(store) => Failure::Unavailable(store.to_string()),
            Err(other) => Failure::Failed(other),
        })?;
    setup::offer(&app.config, &app.accounts).await?;
    if let Ok(Some(why)) = app.config.open_to_others() {
        tracing::warn!("the data directory {why}");
    }
    let listening = http::serve(app.clone())?;
    tracing::info!(address = %listening.address, "serving");
    stop.wanted().await;

    tracing::info!("stopping: finishing what is in flight");
    app.stop_being_ready();
    let ending = app.stop(listening);
    tokio::select! {
        () = ending => tracing::info!("stopped"),
        () = tokio::time::sleep(END_WITHIN) => {
            tracing::warn!("not everything ended in time; what was recorded is safe");
        }
        () = stop.wanted() => tracing::warn!("told twice to stop: ending at once"),
    }
    Ok(())
}

/// The signals that end a server.
pub struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when one arrives.
    pub async fn wanted(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
