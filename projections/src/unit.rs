//! One projection while its rows are brought forward beside the live ones: folded in memory, written
//! together with the checkpoint while the next pages are folded.

use std::sync::Arc;

use proximity_eventstore::{Page, Position};
use tokio::task::JoinHandle;

use crate::backend::{Mark, Move, Session};
use crate::error::Error;
use crate::fold::{AnyFold, Changes};
use crate::pace::{Pace, Turn};
use crate::projection::AnyProjection;
use crate::step::{changes, flushed, fold, load, write};
use crate::views::Inner;

/// Rows that are written at once; what was changed since the batch before stays in memory.
const BATCH: usize = 2_500;

pub(crate) struct Unit {
    pub index: usize,
    /// What is in the tables, or on its way there.
    pub mark: Mark,
    pub fold: Box<dyn AnyFold>,
    /// How far the fold is.
    pub reached: Position,
    pace: Pace,
    /// What is on its way to the tables.
    writing: Option<JoinHandle<Result<(), Error>>>,
}

impl Unit {
    /// Goes on from a checkpoint.
    pub fn at(index: usize, mark: Mark, projection: &dyn AnyProjection, pace: Pace) -> Self {
        let reached = mark.position;
        Self { index, mark, fold: projection.fold(), reached, pace, writing: None }
    }

    pub fn projection<'a>(&self, inner: &'a Inner) -> &'a dyn AnyProjection {
        inner.projections[self.index].as_ref()
    }

    /// Waits for what is on its way to the tables; whoever has a session open would keep it waiting.
    pub async fn written(&mut self) -> Result<(), Error> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(|_| Error::Closed)?,
            None => Ok(()),
        }
    }

    /// Folds what it has not yet of a page; rows come through `session`, or one of its own.
    pub async fn take(
        &mut self,
        inner: &Inner,
        session: Option<&mut dyn Session>,
        page: &Arc<Page>,
    ) -> Result<(), Error> {
        let Some(last) = page.last() else { return Ok(()) };
        if last <= self.reached {
            return Ok(());
        }
        let (projection, slot) = (inner.projections[self.index].as_ref(), self.mark.slot);
        let (fold_of, after) = (self.fold.as_mut(), self.reached);
        match session {
            Some(session) => load(session, projection, slot, fold_of, page, after).await?,
            None => {
                let asked = fold_of.missing(page, after);
                if !asked.is_empty() {
                    // Whatever was let go is committed: only what is on its way was kept.
                    let physical = slot.table(projection.table().name);
                    let found = inner.backend.load(&physical, asked.clone()).await?;
                    fold_of.admit(asked, found)?;
                }
            }
        }
        let folded = fold(&mut self.fold, page, after, self.pace).await?;
        self.reached = folded.reached;
        match folded.stopped {
            None => Ok(()),
            Some(reason) => Err(Error::Stopped {
                name: self.mark.name.clone(),
                position: folded.reached + 1,
                reason,
            }),
        }
    }

    /// Whether there is enough to write.
    pub fn is_due(&self) -> bool {
        self.fold.unwritten() >= BATCH
    }

    /// Sends off to the tables what changed, together with the checkpoint; in turn with others, so that
    /// a database that serves readers meanwhile writes for one of them only.
    pub async fn send(&mut self, inner: &Arc<Inner>, turn: &Turn) -> Result<(), Error> {
        let changes = flushed(&mut self.fold, self.pace).await?;
        self.written().await?;
        let (inner, mark, index) = (Arc::clone(inner), self.mark.clone(), self.index);
        let turn = turn.clone();
        let reached = self.reached;
        self.writing = Some(tokio::spawn(async move {
            let _turn = turn.take().await;
            let mut session = inner.backend.begin().await?;
            let _core = turn.pace.core().await?;
            let projection = inner.projections[index].as_ref();
            write(session.as_mut(), projection, mark.slot, changes).await?;
            // The tables may be another build's by now; then nothing of this is kept.
            if !session.advance(&[Move { mark: &mark, to: reached, problem: None }]).await? {
                return Err(Error::Replaced { name: mark.name });
            }
            session.commit().await
        }));
        self.mark.position = reached;
        Ok(())
    }

    /// What is to be written at the end, taken out of the fold while nobody waits for a session.
    pub async fn rest(&mut self) -> Result<Changes, Error> {
        self.written().await?;
        changes(&mut self.fold, self.pace).await
    }

    /// Writes that; [`Self::store`] has to follow in the same transaction.
    pub async fn write(
        &self,
        inner: &Inner,
        session: &mut dyn Session,
        rest: Changes,
    ) -> Result<(), Error> {
        write(session, self.projection(inner), self.mark.slot, rest).await
    }

    /// Writes what changed since, and moves the checkpoint.
    pub async fn store(&mut self, inner: &Inner, session: &mut dyn Session) -> Result<(), Error> {
        let held = changes(&mut self.fold, self.pace).await?;
        write(session, self.projection(inner), self.mark.slot, held).await?;
        let here = Move { mark: &self.mark, to: self.reached, problem: None };
        if session.advance(&[here]).await? {
            Ok(())
        } else {
            Err(Error::Replaced { name: self.mark.name.clone() })
        }
    }
}
