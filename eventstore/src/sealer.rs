//! The task that seals: at most `Sealing::every` behind, one block after another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{SigningKey, VerifyingKey};
use tokio::sync::Mutex;

use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadWriter, HeadsDir};
use crate::seal::{BLOCK, Seal};
use crate::signed::Signed;
use crate::store::Store;
use crate::task::blocking;

/// What sealing needs; any number of servers may seal one log.
#[derive(Clone)]
pub struct Sealing {
    pub key: SigningKey,
    /// Keys that signed before, for which `key` speaks.
    pub earlier: Vec<VerifyingKey>,
    /// Where heads are published: a directory that the database's administrators do not share.
    pub heads: Option<PathBuf>,
    /// Tells this server's files there from those of others.
    pub server: String,
    /// Pause between two rounds: how far the chain lags behind.
    pub every: Duration,
}

impl Sealing {
    /// The usual pause.
    pub const EVERY: Duration = Duration::from_millis(500);
}

/// How sealing goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealState {
    /// The last position that this server knows to be sealed.
    pub sealed_to: Position,
    /// Why the last round failed.
    pub trouble: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Sealer {
    key: SigningKey,
    every: Duration,
    /// Held while sealing.
    work: Arc<Mutex<Work>>,
    state: Arc<SyncMutex<SealState>>,
}

struct Work {
    heads: Option<HeadWriter>,
    /// For which keys this one still has to speak there.
    earlier: Option<Vec<VerifyingKey>>,
    /// The newest head that is published; unknown before the first round.
    published: Option<Option<Head>>,
    ended: bool,
}

impl Sealer {
    pub fn new(sealing: Sealing) -> Self {
        let Sealing { key, earlier, heads, server, every } = sealing;
        let heads = heads.map(|dir| HeadWriter::new(HeadsDir::new(dir), server));
        let work = Work { heads, earlier: Some(earlier), published: None, ended: false };
        Self { key, every, work: Arc::new(Mutex::new(work)), state: Arc::default() }
    }

    pub fn state(&self) -> SealState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals until the store is gone. `store` answers `None` then.
    pub async fn run(self, store: impl Fn() -> Option<Store>) {
        let mut sealed: Option<Position> = None;
        loop {
            tokio::time::sleep(self.every).await;
            let Some(store) = store() else { return };
            if sealed == Some(*store.watch_head().borrow()) {
                continue;
            }
            let mut work = self.work.lock().await;
            if work.ended {
                return;
            }
            sealed = self.round(&store, &mut work).await.ok();
        }
    }

    /// Seals for the last time, after a sealing that is under way.
    pub async fn end(&self, store: &Store) -> Result<Position, Error> {
        let mut work = self.work.lock().await;
        work.ended = true;
        self.round(store, &mut work).await
    }

    async fn round(&self, store: &Store, work: &mut Work) -> Result<Position, Error> {
        let result = self.seal(store, work).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(position) => *state = SealState { sealed_to: *position, trouble: None },
            Err(error) => {
                if state.trouble.is_none() {
                    tracing::error!(%error, "the log cannot be sealed");
                }
                state.trouble = Some(error.to_string());
            }
        }
        result
    }

    /// Seals everything that is stored; returns the last sealed position.
    ///
    /// Refuses when the chain in the database is not the one that was published: extending it would
    /// cover up that somebody cut or rewrote it.
    async fn seal(&self, store: &Store, work: &mut Work) -> Result<Position, Error> {
        let incarnation = store.incarnation();
        if let Some(dir) = work.heads.as_ref().map(|writer| writer.dir().clone())
            && let Some(earlier) = work.earlier.clone()
        {
            let key = self.key.clone();
            blocking(move || dir.vouch(&key, &earlier)).await?;
            work.earlier = None;
        }
        if work.published.is_none() {
            let published = match work.heads.as_ref().map(|writer| writer.dir().clone()) {
                Some(dir) => blocking(move || dir.latest(incarnation)).await?,
                None => None,
            };
            work.published = Some(published.map(|head| head.statement));
        }
        let mut previous = store.last_seal().await?;
        if let Some(Some(head)) = &work.published {
            let known = store.links(head.block.saturating_sub(1), 1).await?;
            let same = |link: &crate::seal::Link| {
                link.block == head.block && crate::hex(&link.hash) == head.hash
            };
            if !known.first().is_some_and(same) {
                return Err(Error::Forked { block: head.block, position: head.position });
            }
        }
        loop {
            let after = previous.as_ref().map_or(0, |seal| seal.last);
            let events = store.sealable(after, BLOCK).await?;
            if events.is_empty() {
                break;
            }
            let next = Seal::over(&events, previous.as_ref(), incarnation, &self.key, now_micros());
            let next = next.ok_or(Error::Unsealable { after })?;
            previous = match store.insert_seal(next.clone()).await? {
                true => Some(next),
                // Another server sealed first, or this life of the log has ended.
                false => {
                    let last = store.last_seal().await?;
                    if last.as_ref().map(|seal| seal.block) == previous.as_ref().map(|p| p.block) {
                        return Err(Error::Ended { incarnation });
                    }
                    last
                }
            };
        }
        let Some(seal) = previous else { return Ok(0) };
        let is_news = match &work.published {
            Some(Some(head)) => head.block < seal.block,
            Some(None) | None => true,
        };
        if is_news && let Some(mut writer) = work.heads.take() {
            let head = Signed::new(Head::of(&seal), &self.key)?;
            let (writer, added) = blocking(move || {
                let added = writer.add(&head).map(|()| head.statement);
                Ok((writer, added))
            })
            .await?;
            work.heads = Some(writer);
            work.published = Some(Some(added?));
        }
        Ok(seal.last)
    }
}

pub(crate) fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
