//! Holds the stored log against its sealed chain, and the chain against the heads that were published.
//!
//! One pass over log and chain, one over the heads, both in pages: memory does not grow with either.

mod behind;
mod chain;
mod complete;
mod end;
mod heads;
mod left;
mod lives;
mod report;
mod tail;
mod trust;

use std::time::{Duration, Instant};

use crate::append::Position;
use crate::error::Error;
use crate::heads::{HeadsDir, Life};
use crate::kept;
use crate::signed::Trusted;
use crate::store::Store;
use crate::task::blocking;

pub use behind::{Reached, Waiting, reached, waiting};
pub(crate) use end::{before, end, flaw};
pub use report::{Fault, FaultKind, LifeReport, VerifyReport};
pub use tail::unsealable;
pub(crate) use trust::{Said, statements};

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
    look(store, trusted, heads, None, on_progress).await
}

/// The same as if `draft` had been signed: what a restore would be signed for. The draft is given the
/// digest of the log as it is.
pub(crate) async fn rehearse(
    store: &Store,
    trusted: &Trusted,
    heads: HeadsDir,
    draft: &mut Life,
) -> Result<VerifyReport, Error> {
    look(store, trusted, Some(heads), Some(draft), |_| {}).await
}

async fn look(
    store: &Store,
    trusted: &Trusted,
    heads: Option<HeadsDir>,
    draft: Option<&mut Life>,
    on_progress: impl Fn(VerifyProgress) + Send,
) -> Result<VerifyReport, Error> {
    let started = Instant::now();
    let mut trusted = trusted.clone();
    let (mut known, mut unreadable) = (Vec::new(), Vec::new());
    if let Some(dir) = heads.clone() {
        let kept = kept::statements(store).await?;
        (trusted, known, unreadable) =
            blocking(move || trust::statements(&dir, kept, trusted)).await?;
    }
    let incarnation = draft.as_ref().map_or_else(|| store.incarnation(), |draft| draft.incarnation);
    known.retain(|said: &Said| draft.is_none() || said.life.incarnation != incarnation);
    let mut wanted = chain::Wanted::default();
    for life in known.iter().map(|said| &said.life).chain(draft.as_deref()) {
        wanted.began.insert(life.incarnation, life.kept());
        if life.proof.is_some() {
            wanted.digests.insert(life.position);
        }
    }
    let total: Position = store.head().await?;
    let mut report = VerifyReport::new(incarnation);
    let progress = |events_done| {
        on_progress(VerifyProgress {
            events_done,
            events_total: total.max(events_done),
            elapsed: started.elapsed(),
        });
    };
    let digests = chain::check(store, &trusted, &wanted, &mut report, progress).await?;
    // The end of a log that is to be signed for.
    let end = draft.as_ref().map(|draft| draft.position);
    if let Some(draft) = draft {
        if let (Some(proof), Some(digest)) = (&mut draft.proof, digests.get(&draft.position)) {
            proof.digest.clone_from(digest);
        }
        known.push(Said { life: draft.clone(), is_published: true });
    }
    let mut published = None;
    if let Some(dir) = heads {
        let path = lives::Path::walk(&known, incarnation);
        lives::explain(&path, &mut report);
        for file in unreadable {
            let detail = format!("{} cannot be read", file.display());
            let after = report.sealed_to + 1;
            report.fault(FaultKind::ForgedHead, after, after, detail);
        }
        published = heads::check(store, &trusted, &dir, &path, end.is_some(), &mut report).await?;
        // Last: where the log was changed is told better by the seals and the heads.
        lives::hold(store, &path, &digests, &mut report).await?;
    }
    report.head = store.head().await?;
    let uncovered = match end {
        Some(end) => behind::unproven(store, end, &report).await?,
        None => waiting(store, published).await?.iter().map(Waiting::to_string).collect(),
    };
    report.warnings.extend(uncovered);
    report.finish(started.elapsed());
    Ok(report)
}
