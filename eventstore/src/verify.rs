//! Holds the stored log against its sealed chain, and the chain against the heads that were published.
//!
//! One pass over log and chain, one over the heads, both in pages: memory does not grow with either.

mod chain;
mod heads;
mod lives;
mod report;

use std::time::{Duration, Instant};

use crate::append::Position;
use crate::error::Error;
use crate::heads::HeadsDir;
use crate::signed::Trusted;
use crate::store::Store;
use crate::task::blocking;

pub use report::{Fault, FaultKind, LifeReport, VerifyReport};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifyProgress {
    pub events_done: u64,
    pub events_total: u64,
    pub elapsed: Duration,
}

impl VerifyProgress {
    /// How long it still takes at the pace so far; `None` while nothing can be said.
    pub fn left(&self) -> Option<Duration> {
        // Counts of events are far below 2^52, where a double is exact.
        let left = self.events_total.saturating_sub(self.events_done) as f64;
        let pace = self.elapsed.as_secs_f64() / self.events_done as f64;
        Duration::try_from_secs_f64(left * pace).ok()
    }
}

/// Reads the whole log, its chain, and the heads.
///
/// Without `heads` nothing can tell that the tail was cut off or everything was written anew with the
/// key. Beside a server that goes on writing it ends with what was sealed when it came there.
pub async fn verify(
    store: &Store,
    trusted: &Trusted,
    heads: Option<HeadsDir>,
    on_progress: impl Fn(VerifyProgress) + Send,
) -> Result<VerifyReport, Error> {
    let started = Instant::now();
    let mut trusted = trusted.clone();
    let mut lives = Vec::new();
    if let Some(dir) = heads.clone() {
        let (vouched, known) = blocking(move || Ok((dir.vouched()?, dir.lives()?))).await?;
        trusted = trusted.and_vouched(&vouched);
        lives = known;
        lives.retain(|life| life.is_trusted(&trusted));
    }
    let total: Position = store.head().await?;
    let mut report = VerifyReport::new(store.incarnation());
    let progress = |events_done| {
        on_progress(VerifyProgress {
            events_done,
            events_total: total.max(events_done),
            elapsed: started.elapsed(),
        });
    };
    chain::check(store, &trusted, &mut report, progress).await?;
    if let Some(dir) = heads {
        heads::check(store, &trusted, dir, &lives, &mut report).await?;
    }
    report.head = store.head().await?;
    report.finish(started.elapsed());
    Ok(report)
}
