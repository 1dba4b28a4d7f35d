//! The log as read models see it: pages after a position, a head, and a sign that it moved.

use async_trait::async_trait;
use proximity_eventstore::{Page, Position, Recorded, Store};
use tokio::sync::watch;

use crate::Error;

/// A log that can be followed.
#[async_trait]
pub trait Feed: Send + Sync + 'static {
    /// Up to `limit` events after this position, in order, without a gap.
    async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error>;
    /// The same without what no read model is made of.
    async fn page(&self, after: Position, limit: usize) -> Result<Page, Error> {
        Ok(self.events(after, limit).await?.iter().collect())
    }
    /// One stream's events, in order; none when it does not exist.
    async fn stream(&self, aggregate_type: &str, id: &str) -> Result<Vec<Recorded>, Error>;
    /// Position of the last event; 0 when there is none.
    async fn head(&self) -> Result<Position, Error>;
    /// Wakes when there may be more; polling is the net below it.
    fn watch(&self) -> watch::Receiver<Position>;
    /// Changes when the log was restored from a backup.
    fn incarnation(&self) -> String;
}

#[async_trait]
impl Feed for Store {
    async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        self.feed(after, limit).await.map_err(|error| Error::Feed(error.into()))
    }

    async fn page(&self, after: Position, limit: usize) -> Result<Page, Error> {
        Self::page(self, after, limit).await.map_err(|error| Error::Feed(error.into()))
    }

    async fn stream(&self, aggregate_type: &str, id: &str) -> Result<Vec<Recorded>, Error> {
        self.load_stream(aggregate_type, id).await.map_err(|error| Error::Feed(error.into()))
    }

    async fn head(&self) -> Result<Position, Error> {
        Self::head(self).await.map_err(|error| Error::Feed(error.into()))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.watch_head()
    }

    fn incarnation(&self) -> String {
        Self::incarnation(self).to_string()
    }
}

/// Refuses a page that skips: the log is dense, so a gap means that events were lost on the way.
pub(crate) fn check_dense(after: Position, page: &Page) -> Result<(), Error> {
    let mut last = after;
    for recorded in page.iter() {
        if recorded.position != last + 1 {
            return Err(Error::Gap { after: last, found: recorded.position });
        }
        last = recorded.position;
    }
    Ok(())
}
