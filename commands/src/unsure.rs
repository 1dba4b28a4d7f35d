//! Counts that are written down once, also where the database's answer was lost on its way.

use std::sync::{Mutex, PoisonError};

use proximity_eventstore::{Append, AppendError, Store};

/// Appends one after another. One of which it is not known whether it was stored is kept as it is, and is
/// submitted again under its id before anything else: so it is stored once.
#[derive(Default)]
pub(crate) struct Unsure(Mutex<Option<Append>>);

impl Unsure {
    /// Stores it, or keeps it: only on an error nothing of it was, and it is the caller's to try again.
    pub(crate) async fn append(&self, store: &Store, append: Append) -> Result<(), AppendError> {
        self.settle(store).await?;
        match store.append(append.clone()).await {
            Err(AppendError::Unknown) => {
                tracing::warn!("whether a count was written down is not known yet");
                self.set(Some(append));
                Ok(())
            }
            known => known.map(drop),
        }
    }

    /// Learns what became of the one that is kept, if there is one.
    pub(crate) async fn settle(&self, store: &Store) -> Result<(), AppendError> {
        let Some(append) = self.set(None) else { return Ok(()) };
        match store.append(append.clone()).await {
            Ok(_) => Ok(()),
            Err(
                error @ (AppendError::Unknown
                | AppendError::Unavailable { .. }
                | AppendError::Busy { .. }
                | AppendError::Closed),
            ) => {
                self.set(Some(append));
                Err(error)
            }
            // It would be refused for ever, and hold up all others.
            Err(error) => {
                tracing::error!(%error, metadata = append.metadata, "a count is not in the log");
                Ok(())
            }
        }
    }

    fn set(&self, append: Option<Append>) -> Option<Append> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut kept, append)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proximity_domain::refusal::STREAM;
    use proximity_eventstore::{Expected, Lane, NewEvent, StreamAppend};
    use uuid::Uuid;

    use super::*;
    use crate::testing::Site;

    fn some() -> Append {
        Append {
            id: Uuid::now_v7(),
            lane: Lane::User("counts".to_owned()),
            streams: vec![StreamAppend {
                metadata: None,
                aggregate_type: STREAM.to_owned(),
                aggregate_id: "counts".to_owned(),
                expected: Expected::Any,
                events: vec![NewEvent {
                    event_type: "refusal.counted".to_owned(),
                    event_version: "1".to_owned(),
                    payload: "{}".to_owned(),
                }],
            }],
            assertions: vec![],
            side: vec![],
            metadata: "{}".to_owned(),
            fence: None,
            idempotency: None,
        }
    }

    #[tokio::test]
    async fn what_was_stored_although_its_answer_was_lost_is_not_stored_again() {
        let site = Site::open().await;
        let (unsure, lost) = (Unsure::default(), some());
        site.store.append(lost.clone()).await.unwrap();
        unsure.set(Some(lost));
        unsure.append(&site.store, some()).await.unwrap();
        unsure.settle(&site.store).await.unwrap();
        assert_eq!(site.store.head().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_was_not_stored_is_stored_before_anything_else() {
        let site = Site::open().await;
        let unsure = Unsure::default();
        unsure.set(Some(some()));
        unsure.settle(&site.store).await.unwrap();
        assert_eq!(site.store.head().await.unwrap(), 1);
    }
}
