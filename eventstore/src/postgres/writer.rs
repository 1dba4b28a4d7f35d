//! The one task that appends: batch by batch, and what it does when the database does not answer.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::batch::Verdicts;
use super::fault::Fault;
use super::session::{Backend, Lost, Session};
use crate::append::{Append, AppendError, Position};
use crate::queue::{Answer, Job, Queue, Turn};
use crate::task::advance;

/// How often a batch is submitted again that lost a deadlock or was cancelled.
const AGAIN: u32 = 3;
/// Between two attempts to reach the database again.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    connect: PgConnectOptions,
    patience: Duration,
    head: watch::Sender<Position>,
    session: Option<Session>,
    /// The server process of a lost connection, to be ended before anything else is submitted.
    abandoned: Option<Backend>,
}

/// A batch on its way: what is stored, and who waits for it.
struct Batch {
    appends: Arc<Vec<Append>>,
    waiting: Vec<Option<oneshot::Sender<Answer>>>,
}

impl Batch {
    fn answer(&mut self, number: usize, answer: Answer) {
        if let Some(waiting) = self.waiting[number].take() {
            // Nobody listening is no reason not to store it.
            drop(waiting.send(answer));
        }
    }

    fn refuse(&mut self, range: Range<usize>, error: impl Fn() -> AppendError) {
        for number in range {
            self.answer(number, Err(error()));
        }
    }
}

impl Writer {
    pub fn new(
        connect: PgConnectOptions,
        patience: Duration,
        head: watch::Sender<Position>,
    ) -> Self {
        Self { connect, patience, head, session: None, abandoned: None }
    }

    /// Works until the queue is closed and empty.
    pub async fn run(mut self, queue: Arc<Queue<Infallible>>) {
        /// Lets nobody wait for a task that is gone.
        struct Abandon(Arc<Queue<Infallible>>);
        impl Drop for Abandon {
            fn drop(&mut self) {
                self.0.abandon();
            }
        }
        let abandon = Abandon(queue);
        while let Some(turn) = abandon.0.next().await {
            match turn {
                Turn::Batch(jobs) => self.settle(jobs).await,
                // None is ever made: an errand would need a value of the empty type.
                Turn::Errands(_) => {}
            }
        }
    }

    /// Stores a batch and answers each of its appends.
    ///
    /// When the database refuses something in it, halves are submitted by themselves until the
    /// culprits stand alone: 1 among 512 costs about 20 calls, not 512.
    async fn settle(&mut self, jobs: Vec<Job>) {
        let (appends, waiting): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(Job::split).map(|(append, answer)| (append, Some(answer))).unzip();
        let mut batch = Batch { appends: Arc::new(appends), waiting };
        let mut parts: Vec<Range<usize>> = Vec::new();
        parts.push(0..batch.appends.len());
        while let Some(range) = parts.pop() {
            match self.submit(&batch.appends, range.clone()).await {
                Ok(verdicts) => {
                    advance(&self.head, verdicts.head);
                    for (number, answer) in range.zip(verdicts.answers) {
                        batch.answer(number, answer);
                    }
                }
                Err(Fault::Refused(reason)) if range.len() == 1 => {
                    batch.refuse(range, || AppendError::Invalid { reason: reason.clone() });
                }
                Err(Fault::Refused(_)) => {
                    let middle = range.start + range.len() / 2;
                    parts.push(middle..range.end);
                    parts.push(range.start..middle);
                }
                Err(Fault::Again(reason) | Fault::Unavailable(reason)) => {
                    tracing::warn!(
                        reason,
                        appends = range.len(),
                        "the event log cannot be written"
                    );
                    batch.refuse(range, || AppendError::Unavailable {
                        reason: reason.clone(),
                        retry_after: Duration::from_secs(2),
                    });
                }
                Err(Fault::Unknown(reason)) => {
                    tracing::error!(reason, appends = range.len(), "an outcome stays unknown");
                    batch.refuse(range, || AppendError::Unknown);
                }
            }
        }
    }

    /// Submits until the outcome is known, or patience is at its end.
    ///
    /// A call whose connection was lost is submitted again under the same ids: the table of appends
    /// then says which ones had been stored. Looking once would not do: the lost call may still run.
    async fn submit(
        &mut self,
        appends: &Arc<Vec<Append>>,
        range: Range<usize>,
    ) -> Result<Verdicts, Fault> {
        let deadline = Instant::now() + self.patience;
        let mut submitted = false;
        let mut again = 0;
        loop {
            let session = match self.session(deadline).await {
                Ok(session) => session,
                Err(error) if !submitted => return Err(Fault::Unavailable(error.to_string())),
                Err(error) if Instant::now() >= deadline => {
                    return Err(Fault::Unknown(error.to_string()));
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let backend = session.backend.clone();
            let (session, result) =
                session.call(Arc::clone(appends), range.clone(), deadline).await;
            self.session = session;
            match result {
                Ok(verdicts) => return Ok(verdicts),
                Err(Lost::Fault(Fault::Again(_))) if again < AGAIN => again += 1,
                Err(Lost::Fault(fault)) => return Err(fault),
                Err(Lost::Gone(reason)) => {
                    self.abandoned = Some(backend);
                    submitted = true;
                    if Instant::now() >= deadline {
                        return Err(Fault::Unknown(reason));
                    }
                    tracing::warn!(
                        reason,
                        "the connection was lost during an append; submitting it again"
                    );
                }
            }
        }
    }

    /// The connection, opened anew if need be, with nothing of an earlier one still running.
    async fn session(&mut self, deadline: Instant) -> Result<Session, sqlx::Error> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(self.connect.clone(), deadline).await?,
        };
        if let Some(backend) = &self.abandoned {
            session.bury(backend, deadline).await?;
            self.abandoned = None;
        }
        Ok(session)
    }
}
