//! The task that seals: at most `Options::seal_every` behind, one block after another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use tokio::sync::Mutex;

use crate::append::Position;
use crate::error::Error;
use crate::seal::{BLOCK, PublishedHead, Seal};
use crate::store::Store;
use crate::task::blocking;

/// What the sealer works with.
#[derive(Clone)]
pub(crate) struct Sealer {
    pub key: SigningKey,
    pub publish_dir: Option<PathBuf>,
    pub every: Duration,
    /// Held while sealing; whether it has ended.
    pub ended: Arc<Mutex<bool>>,
}

impl Sealer {
    /// Seals until the store is gone. `store` answers `None` then.
    pub async fn run(self, store: impl Fn() -> Option<Store>) {
        let mut sealed: Option<Position> = None;
        let mut failing = false;
        loop {
            tokio::time::sleep(self.every).await;
            let Some(store) = store() else { return };
            if sealed == Some(*store.watch_head().borrow()) {
                continue;
            }
            let ended = self.ended.lock().await;
            if *ended {
                return;
            }
            match self.seal(&store).await {
                Ok(position) => {
                    sealed = Some(position);
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the log cannot be sealed");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Seals for the last time, after a sealing that is under way.
    pub async fn end(&self, store: &Store) -> Result<Position, Error> {
        let mut ended = self.ended.lock().await;
        *ended = true;
        self.seal(store).await
    }

    /// Seals everything that is stored; returns the last sealed position.
    ///
    /// Refuses when the chain in the database is not the one that was published: extending it would
    /// cover up that somebody cut or rewrote it.
    async fn seal(&self, store: &Store) -> Result<Position, Error> {
        let incarnation = store.incarnation();
        let published = match self.publish_dir.clone() {
            Some(dir) => blocking(move || PublishedHead::read(&dir, incarnation)).await?,
            None => None,
        };
        let mut previous = store.last_seal().await?;
        if let Some(head) = &published {
            let known = store.seals(head.block.saturating_sub(1), 1).await?;
            if known.first().is_none_or(|seal| crate::hex(&seal.hash) != head.hash) {
                return Err(Error::malformed(format!(
                    "block {} of the sealed chain is not the one that was published",
                    head.block
                )));
            }
        }
        loop {
            let after = previous.as_ref().map_or(0, |seal| seal.last);
            let events = store.feed(after, BLOCK).await?;
            let next = Seal::over(&events, previous.as_ref(), incarnation, &self.key, now_micros());
            let Some(next) = next else { break };
            previous = if store.insert_seal(next.clone()).await? {
                Some(next)
            } else {
                // Another server sealed first.
                store.last_seal().await?
            };
        }
        let Some(seal) = previous else { return Ok(0) };
        if let Some(dir) = self.publish_dir.clone()
            && published.is_none_or(|head| head.block < seal.block)
        {
            let head = PublishedHead::of(&seal, incarnation);
            blocking(move || head.write(&dir)).await?;
        }
        Ok(seal.last)
    }
}

fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
