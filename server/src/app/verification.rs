//! One verification of the log at a time, behind the handlers: who asks gets the last one and its age.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use proximity_eventstore::{Error, HeadsDir, VerifyProgress, VerifyReport, verify};
use tokio::sync::watch;

use super::App;
use super::sealing::{SigningKeys, heads_dir};
use crate::http::problem::chain;

/// How long an answer waits for a verification that ends soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the last verification ended.
#[derive(Clone)]
pub struct Finished {
    pub at: SystemTime,
    /// What it saw, or why it could not look.
    pub report: Result<Arc<VerifyReport>, String>,
}

/// What is known at one moment.
#[derive(Clone)]
pub struct Seen {
    /// How far the one under way is.
    pub running: Option<VerifyProgress>,
    pub finished: Option<Finished>,
}

/// The verification of one server.
pub struct Verification {
    state: Mutex<Seen>,
    ended: watch::Sender<u64>,
}

impl Default for Verification {
    fn default() -> Self {
        let state = Mutex::new(Seen { running: None, finished: None });
        Self { state, ended: watch::Sender::new(0) }
    }
}

impl Verification {
    fn state(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last result if it is at most this old; else starts a verification, or joins the one under
    /// way, and waits for it a moment.
    pub async fn ask(&self, app: &Arc<App>, max_age: Duration) -> Seen {
        let mut ended = self.ended.subscribe();
        if self.starts(max_age) {
            let run = app.clone();
            app.spawn(async move {
                let stopping = run.stopping.clone();
                let report = tokio::select! {
                    report = look(&run) => report,
                    () = stopping.cancelled() => Err("the server stops".to_owned()),
                };
                run.verification.finish(report);
            });
        }
        if self.state().running.is_some() {
            // Only a wait: the verification goes on without whoever asked.
            let over = tokio::time::timeout(PATIENCE, ended.changed()).await;
            tracing::trace!(over = over.is_ok(), "waited for a verification");
        }
        self.state().clone()
    }

    fn starts(&self, max_age: Duration) -> bool {
        let mut state = self.state();
        let fresh = |finished: &Finished| {
            finished.report.is_ok() && finished.at.elapsed().unwrap_or_default() < max_age
        };
        if state.running.is_some() || state.finished.as_ref().is_some_and(fresh) {
            return false;
        }
        let (events_done, events_total, elapsed) = (0, 0, Duration::ZERO);
        state.running = Some(VerifyProgress { events_done, events_total, elapsed });
        true
    }

    fn finish(&self, report: Result<VerifyReport, String>) {
        let mut state = self.state();
        state.running = None;
        state.finished = Some(Finished { at: SystemTime::now(), report: report.map(Arc::new) });
        drop(state);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

async fn look(app: &Arc<App>) -> Result<VerifyReport, String> {
    let keys = SigningKeys::derive(&app.keys.keys());
    let dir = HeadsDir::new(heads_dir(&app.config));
    let progress = |progress| app.verification.state().running = Some(progress);
    let report = match keys.trusted(&app.store).await {
        Ok(trusted) => verify(&app.store, &trusted, Some(dir), progress).await,
        Err(error) => Err(error),
    };
    match report {
        Ok(report) => {
            if let Some(fault) = &report.first_break {
                tracing::error!(
                    position = fault.position,
                    kind = fault.kind.as_str(),
                    breaks = report.breaks,
                    "the log is not as it was sealed: {}",
                    fault.detail
                );
            }
            Ok(report)
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "the log could not be verified");
            Err(reason(&error))
        }
    }
}

/// What an administrator is told; the chain behind it is in the server's log only.
fn reason(error: &Error) -> String {
    match error {
        Error::Io { path, source } => format!("cannot read {}: {}", path.display(), source.kind()),
        other => other.to_string(),
    }
}
