//! The log page by page, the next page on its way while one is worked on.

use std::sync::Arc;

use proximity_eventstore::{Page, Position};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::feed::{Feed, check_dense};
use crate::pace::Pace;

/// Events read and committed at once.
pub(crate) const PAGE: usize = 5_000;

type Reading = JoinHandle<Result<Page, Error>>;

/// A reader that fetches ahead.
pub(crate) struct Pages {
    feed: Arc<dyn Feed>,
    pace: Pace,
    ahead: Option<(Position, Reading)>,
}

impl Pages {
    pub fn new(feed: &Arc<dyn Feed>) -> Self {
        Self::paced(feed, Pace::Alone)
    }

    pub fn paced(feed: &Arc<dyn Feed>, pace: Pace) -> Self {
        Self { feed: Arc::clone(feed), pace, ahead: None }
    }

    /// The events after a position that there are now; fetches on when the page is full.
    pub async fn poll(&mut self, after: Position) -> Result<Page, Error> {
        let page = self.take(after).await?;
        if let Some(last) = page.last().filter(|_| page.len() == PAGE) {
            self.fetch(last);
        }
        Ok(page)
    }

    /// The events after a position, at most up to `to`; never empty before it.
    pub async fn next(&mut self, after: Position, to: Position) -> Result<Page, Error> {
        let mut page = self.take(after).await?;
        page.truncate(to);
        let Some(last) = page.last() else {
            return Err(Error::Short { reached: after, head: to });
        };
        if last < to {
            self.fetch(last);
        }
        Ok(page)
    }

    async fn take(&mut self, after: Position) -> Result<Page, Error> {
        let page = match self.ahead.take() {
            Some((position, reading)) if position == after => {
                reading.await.map_err(|_| Error::Closed)??
            }
            _ => read(&self.feed, self.pace, after).await?,
        };
        check_dense(after, &page)?;
        Ok(page)
    }

    fn fetch(&mut self, after: Position) {
        let (feed, pace) = (Arc::clone(&self.feed), self.pace);
        self.ahead = Some((after, tokio::spawn(async move { read(&feed, pace, after).await })));
    }
}

async fn read(feed: &Arc<dyn Feed>, pace: Pace, after: Position) -> Result<Page, Error> {
    let _core = pace.core().await?;
    feed.page(after, PAGE).await
}
