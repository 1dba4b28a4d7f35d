//! One projection while its rows are brought forward beside the live ones: folded in memory, written
//! now and then together with the checkpoint.

use std::sync::Arc;

use proximity_eventstore::{Position, Recorded};
use tokio::task::JoinHandle;

use crate::backend::{Mark, Session};
use crate::error::Error;
use crate::fold::{AnyFold, Changes};
use crate::projection::AnyProjection;
use crate::step::{changes, fold, load, write};
use crate::views::Inner;

/// Lines of a journal that are written at once while the next pages are folded.
const LINES: usize = 10_000;

pub(crate) struct Unit {
    pub index: usize,
    /// What is in the tables.
    pub mark: Mark,
    pub fold: Box<dyn AnyFold>,
    /// How far the fold is.
    pub reached: Position,
    /// Lines of its journal on their way to the table.
    writing: Option<JoinHandle<Result<(), Error>>>,
}

impl Unit {
    /// Goes on from a checkpoint.
    pub fn at(index: usize, mark: Mark, projection: &dyn AnyProjection) -> Self {
        let reached = mark.position;
        Self { index, mark, fold: projection.fold(), reached, writing: None }
    }

    pub fn projection<'a>(&self, inner: &'a Inner) -> &'a dyn AnyProjection {
        inner.projections[self.index].as_ref()
    }

    /// The table holds nothing yet, which makes writing quicker.
    fn is_fresh(&self) -> bool {
        self.mark.position == 0
    }

    /// Waits for the lines that are on their way; whoever has a session open would keep them waiting.
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
        page: &Arc<Vec<Recorded>>,
    ) -> Result<(), Error> {
        let Some(last) = page.last().map(|event| event.position) else { return Ok(()) };
        if last <= self.reached {
            return Ok(());
        }
        let (projection, slot) = (inner.projections[self.index].as_ref(), self.mark.slot);
        let (fold_of, after) = (self.fold.as_mut(), self.reached);
        match session {
            Some(session) => load(session, projection, slot, fold_of, page, after).await?,
            None if fold_of.missing(page, after).is_empty() => {}
            None => {
                let mut session = inner.backend.begin().await?;
                load(session.as_mut(), projection, slot, fold_of, page, after).await?;
                session.rollback().await?;
            }
        }
        let folded = fold(&mut self.fold, page, after).await?;
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

    /// Sends a journal's lines off to its table once they are many, which nothing folded later changes.
    pub async fn write_lines(&mut self, inner: &Arc<Inner>) -> Result<(), Error> {
        let Some(journal) = self.fold.lines(LINES) else { return Ok(()) };
        self.written().await?;
        let (inner, mark, index) = (Arc::clone(inner), self.mark.clone(), self.index);
        self.writing = Some(tokio::spawn(async move {
            let mut session = inner.backend.begin().await?;
            let changes = Changes { journal, ..Changes::default() };
            let projection = inner.projections[index].as_ref();
            write(session.as_mut(), projection, mark.slot, changes, true).await?;
            // The table may be another build's by now; then nothing of this is kept.
            if !session.advance(&mark, mark.position, None).await? {
                return Err(Error::Replaced { name: mark.name });
            }
            session.commit().await
        }));
        Ok(())
    }

    /// Writes what is in memory and moves the checkpoint, so that a crash costs no more than what
    /// comes after.
    pub async fn flush(&mut self, inner: &Inner) -> Result<(), Error> {
        self.written().await?;
        let mut session = inner.backend.begin().await?;
        self.store(inner, session.as_mut()).await?;
        session.commit().await?;
        self.mark.position = self.reached;
        Ok(())
    }

    /// Writes the most of it, which takes longest; [`Self::store`] has to follow in the same transaction.
    pub async fn store_most(
        &mut self,
        inner: &Inner,
        session: &mut dyn Session,
    ) -> Result<(), Error> {
        let most = changes(&mut self.fold).await?;
        write(session, self.projection(inner), self.mark.slot, most, self.is_fresh()).await
    }

    /// Writes what changed since, and moves the checkpoint.
    pub async fn store(&mut self, inner: &Inner, session: &mut dyn Session) -> Result<(), Error> {
        let held = changes(&mut self.fold).await?;
        write(session, self.projection(inner), self.mark.slot, held, false).await?;
        if session.advance(&self.mark, self.reached, None).await? {
            Ok(())
        } else {
            Err(Error::Replaced { name: self.mark.name.clone() })
        }
    }
}
