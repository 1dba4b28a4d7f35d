//! What the runner and a build do with a page: read the rows it needs, fold it, write what changed.

use std::sync::Arc;

use proximity_eventstore::{Page, Position};

use crate::backend::{Session, Slot};
use crate::error::Error;
use crate::fold::{Absent, AnyFold, Changes, Folded};
use crate::pace::Pace;
use crate::projection::AnyProjection;

/// Pages larger than this are folded off the async threads.
const INLINE: usize = 256;

/// Reads the rows that a page needs and that are not in memory.
pub(crate) async fn load(
    session: &mut dyn Session,
    projection: &dyn AnyProjection,
    slot: Slot,
    fold: &mut dyn AnyFold,
    page: &Page,
    after: Position,
) -> Result<(), Error> {
    let asked = fold.missing(page, after);
    if asked.is_empty() {
        return Ok(());
    }
    let physical = slot.table(projection.table().name);
    let found = session.load(&physical, asked.clone()).await?;
    fold.admit(asked, found)
}

/// Folds a page; a long one off the async threads.
pub(crate) async fn fold(
    fold: &mut Box<dyn AnyFold>,
    page: &Arc<Page>,
    after: Position,
    pace: Pace,
) -> Result<Folded, Error> {
    if page.len() <= INLINE {
        return Ok(fold.fold(page, after));
    }
    let page = Arc::clone(page);
    elsewhere(fold, pace, move |fold| fold.fold(&page, after)).await
}

/// Takes what changed out of a fold that may hold much.
pub(crate) async fn changes(fold: &mut Box<dyn AnyFold>, pace: Pace) -> Result<Changes, Error> {
    elsewhere(fold, pace, |fold| fold.changes()).await?
}

/// The same, and lets go what is not needed to go on; see [`AnyFold::flush`].
pub(crate) async fn flushed(fold: &mut Box<dyn AnyFold>, pace: Pace) -> Result<Changes, Error> {
    elsewhere(fold, pace, |fold| fold.flush()).await?
}

/// Works on a fold off the async threads.
async fn elsewhere<T: Send + 'static>(
    fold: &mut Box<dyn AnyFold>,
    pace: Pace,
    work: impl FnOnce(&mut dyn AnyFold) -> T + Send + 'static,
) -> Result<T, Error> {
    let core = pace.folding().await?;
    let mut taken = std::mem::replace(fold, Box::new(Absent));
    let working = tokio::task::spawn_blocking(move || {
        let _core = core;
        let result = work(taken.as_mut());
        (taken, result)
    });
    let (taken, result) = working.await.map_err(|_| Error::Closed)?;
    *fold = taken;
    Ok(result)
}

/// Writes what changed since the table was as the fold knows it.
pub(crate) async fn write(
    session: &mut dyn Session,
    projection: &dyn AnyProjection,
    slot: Slot,
    changes: Changes,
) -> Result<(), Error> {
    let table = projection.table();
    let physical = slot.table(table.name);
    if !changes.inserts.is_empty() {
        session.insert(&table, &physical, changes.inserts).await?;
    }
    if !changes.updates.is_empty() {
        session.replace(&table, &physical, changes.updates).await?;
    }
    if !changes.deletes.is_empty() {
        session.delete(&physical, changes.deletes).await?;
    }
    Ok(())
}
