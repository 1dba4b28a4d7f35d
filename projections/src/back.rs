//! Back to the previous generation: brought up to the live one beside it, then both change places in
//! one transaction, so that no reader goes back in time.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::backend::{Mark, Slot};
use crate::build::{BuildProgress, OnProgress, Rebuilt};
use crate::error::Error;
use crate::pace::{Pace, Turn};
use crate::pages::Pages;
use crate::unit::Unit;
use crate::views::Inner;

/// Switches one projection back; what was live becomes the previous generation.
pub(crate) async fn switch_back(
    inner: &Arc<Inner>,
    index: usize,
    on_progress: &OnProgress,
) -> Result<Rebuilt, Error> {
    let projection = inner.projections[index].as_ref();
    let mark = previous(inner, index).await?;
    // Somebody may serve meanwhile; where nobody does, that costs a core at most.
    let pace = Pace::Beside;
    let mut unit = Unit::at(index, mark, projection, pace);
    let (started, from, turn) = (Instant::now(), unit.reached, Turn::at(pace));
    let mut pages = Pages::paced(&inner.feed, pace);
    // The long part, while the live rows go on.
    let head = inner.feed.head().await?;
    while unit.reached < head {
        let page = Arc::new(pages.next(unit.reached, head).await?);
        unit.take(inner, None, &page).await?;
        if unit.is_due() {
            unit.send(inner, &turn).await?;
        }
        on_progress(BuildProgress {
            events_done: unit.reached,
            events_total: head,
            events_before: from,
            elapsed: started.elapsed(),
        });
    }
    if unit.reached > from {
        unit.send(inner, &turn).await?;
    }
    unit.written().await?;
    // The live one waits from here on, as at the end of a rebuild.
    let mut pages = Pages::new(&inner.feed);
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    let live = session.mark(projection.name(), Slot::Live).await?;
    let live = live.map_or(0, |live| live.position);
    while unit.reached < live {
        let page = Arc::new(pages.next(unit.reached, live).await?);
        unit.take(inner, Some(session.as_mut()), &page).await?;
    }
    unit.store(inner, session.as_mut()).await?;
    session.switch_back(projection).await?;
    session.commit().await?;
    let (name, version) = (unit.mark.name, unit.mark.version);
    Ok(Rebuilt { name, version, position: unit.reached, from })
}

/// The checkpoint of a previous generation that this program can bring forward, made its own: under
/// another name, so that of two that switch back one gives up.
async fn previous(inner: &Inner, index: usize) -> Result<Mark, Error> {
    let projection = inner.projections[index].as_ref();
    let name = || projection.name().to_owned();
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    let mark = session.mark(projection.name(), Slot::Previous).await?;
    let mark = mark.ok_or_else(|| Error::NoPrevious { name: name() })?;
    if mark.version != projection.version() {
        let (name, version) = (name(), mark.version);
        return Err(Error::PreviousVersion { name, version, known: projection.version() });
    }
    if mark.incarnation != inner.feed.incarnation() {
        return Err(Error::PreviousLife { name: name() });
    }
    let generation = Uuid::new_v4().simple().to_string();
    session.take_over(&mark, &generation).await?;
    session.commit().await?;
    Ok(Mark { generation, ..mark })
}

/// Removes the previous generation of one projection; nothing happens when there is none.
pub(crate) async fn drop_previous(inner: &Inner, index: usize) -> Result<(), Error> {
    let mut session = inner.backend.begin().await?;
    session.lock_schema().await?;
    session.drop_generation(inner.projections[index].as_ref(), Slot::Previous).await?;
    session.commit().await
}
