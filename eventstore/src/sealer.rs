//! The task that seals: at most `Sealing::every` behind, one block after another.

mod publish;

use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{SigningKey, VerifyingKey};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::append::Position;
use crate::error::Error;
use crate::heads::{HeadWriter, HeadsDir};
use crate::seal::{BLOCK, Seal};
use crate::store::Store;
use crate::task::blocking;

pub(crate) use publish::Published;
use publish::Publisher;

/// Finds the key that signs now, and those that signed before; or why none may sign.
pub type Renewed = Arc<
    dyn Fn() -> BoxFuture<'static, Result<(SigningKey, Vec<VerifyingKey>), String>> + Send + Sync,
>;

/// What sealing needs; any number of servers may seal one log.
#[derive(Clone)]
pub struct Sealing {
    pub key: SigningKey,
    /// Keys that signed before, for which `key` speaks.
    pub earlier: Vec<VerifyingKey>,
    /// Asked before each round, and for each block once its events are read: no block has an event
    /// that says that its key was destroyed, or stands behind one.
    pub renewed: Option<Renewed>,
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
    every: Duration,
    /// Held while sealing.
    work: Arc<Mutex<Work>>,
    state: Arc<SyncMutex<SealState>>,
}

struct Work {
    key: SigningKey,
    earlier: Vec<VerifyingKey>,
    renewed: Option<Renewed>,
    /// Where heads are to be published, before the first round.
    heads: Option<HeadWriter>,
    publisher: Option<Publisher>,
    /// Whether the key has spoken for the earlier ones there.
    vouched: bool,
    ended: bool,
}

impl Sealer {
    pub fn new(sealing: Sealing) -> Self {
        let Sealing { key, earlier, renewed, heads, server, every } = sealing;
        let heads = heads.map(|dir| HeadWriter::new(HeadsDir::new(dir), server));
        let work =
            Work { key, earlier, renewed, heads, publisher: None, vouched: false, ended: false };
        Self { every, work: Arc::new(Mutex::new(work)), state: Arc::default() }
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
        let last = self.round(store, &mut work).await;
        // It may hold the store, which holds this.
        work.renewed = None;
        last
    }

    async fn round(&self, store: &Store, work: &mut Work) -> Result<Position, Error> {
        let result = self.seal(store, work).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(position) => *state = SealState { sealed_to: *position, trouble: None },
            Err(error) => {
                let why = match std::error::Error::source(error) {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                };
                if state.trouble.is_none() {
                    tracing::error!(error = why, "the log cannot be sealed");
                }
                state.trouble = Some(why);
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
        work.renew().await?;
        if let Some(writer) = work.heads.take() {
            let keys = work.earlier.iter().copied().chain([work.key.verifying_key()]).collect();
            let (dir, server) = (writer.dir().clone(), writer.server().to_owned());
            match Publisher::begin(store, writer, keys).await {
                Ok(publisher) => work.publisher = Some(publisher),
                Err(error) => {
                    work.heads = Some(HeadWriter::new(dir, server));
                    return Err(error);
                }
            }
        }
        work.vouch().await?;
        let mut previous = store.last_seal().await?;
        if let Some(head) = work.publisher.as_ref().and_then(Publisher::newest) {
            let known = store.links(head.block.saturating_sub(1), 1).await?;
            let same = |link: &crate::seal::Link| {
                link.block == head.block && crate::hex(&link.hash) == head.hash
            };
            if !known.first().is_some_and(same) {
                return Err(Error::Forked { block: head.block, position: head.position });
            }
        }
        let before = previous.as_ref().map_or(0, |seal| seal.block);
        loop {
            let after = previous.as_ref().map_or(0, |seal| seal.last);
            let events = store.sealable(after, BLOCK).await?;
            if events.is_empty() {
                break;
            }
            work.renew().await?;
            let next = Seal::over(&events, previous.as_ref(), incarnation, &work.key, now_micros());
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
        work.vouch().await?;
        let Some(seal) = previous else { return Ok(0) };
        let last_time = work.ended;
        if let Some(publisher) = &mut work.publisher {
            publisher.publish(store, &work.key, before, &seal).await?;
            publisher.note(store, last_time).await?;
        }
        Ok(seal.last)
    }
}

impl Work {
    /// Says where heads are published that the key speaks for those before it.
    async fn vouch(&mut self) -> Result<(), Error> {
        let Some(publisher) = self.publisher.as_ref().filter(|_| !self.vouched) else {
            return Ok(());
        };
        let (dir, key, earlier) = (publisher.dir().clone(), self.key.clone(), self.earlier.clone());
        blocking(move || dir.vouch(&key, &earlier)).await?;
        self.vouched = true;
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), Error> {
        let Some(renewed) = self.renewed.clone() else { return Ok(()) };
        let (key, earlier) = renewed().await.map_err(|reason| Error::NoSealKey { reason })?;
        if key.verifying_key() != self.key.verifying_key() {
            self.vouched = false;
            (self.key, self.earlier) = (key, earlier);
        }
        Ok(())
    }
}

pub(crate) fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
