//! The task that seals: at most `Sealing::every` behind, one block after another.

mod publish;

use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{SigningKey, VerifyingKey};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::append::Position;
use crate::error::Error;
use crate::heads::{HeadWriter, HeadsDir, is_ours};
use crate::seal::{BLOCK, Seal};
use crate::signed::Trusted;
use crate::store::Store;
use crate::verify;

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
    /// Those of them that were destroyed: no head of theirs says how far the chain has to go.
    pub destroyed: Vec<VerifyingKey>,
    /// Asked before each round, and for each block once its events are read: no block has an event
    /// that says that its key was destroyed, or stands behind one.
    pub renewed: Option<Renewed>,
    /// Where heads are published: a directory that the database's administrators do not share.
    pub heads: Option<PathBuf>,
    /// Where commands publish under the same name that do not know that directory. What they published there
    /// before the server's first round is published in `heads`, too.
    pub elsewhere: Option<PathBuf>,
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
    /// Why the last round failed, or for how long the present one has been stuck.
    pub trouble: Option<String>,
}

/// A round that comes no further for this long is stuck: every step of one is short.
const STUCK: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Sealer {
    every: Duration,
    /// Held while sealing.
    work: Arc<Mutex<Work>>,
    going: Arc<SyncMutex<Going>>,
}

#[derive(Default)]
struct Going {
    state: SealState,
    /// When the present round made its last step.
    step: Option<Instant>,
}

impl Going {
    fn state(&self, now: Instant) -> SealState {
        let mut state = self.state.clone();
        let stuck = self.step.map(|step| now.saturating_duration_since(step));
        if let Some(stuck) = stuck.filter(|stuck| *stuck > STUCK) {
            let stuck = stuck.as_secs();
            state.trouble.get_or_insert_with(|| format!("sealing has been stuck for {stuck} s"));
        }
        state
    }
}

struct Work {
    key: SigningKey,
    earlier: Vec<VerifyingKey>,
    destroyed: Vec<VerifyingKey>,
    renewed: Option<Renewed>,
    /// Where heads are to be published, before the first round.
    heads: Option<HeadWriter>,
    publisher: Option<Publisher>,
    /// The last block before the first round.
    before: Option<u64>,
    /// Whether the key has spoken for the earlier ones there.
    vouched: bool,
    /// Whose blocks are ours: those keys, and those that are vouched for there.
    trusted: Trusted,
    /// The block that is gone on from: one that was made here, or that was found to be ours.
    last: Option<Seal>,
    ended: bool,
}

impl Sealer {
    pub fn new(sealing: Sealing) -> Self {
        let Sealing { key, earlier, destroyed, renewed, heads, elsewhere, server, every } = sealing;
        let elsewhere = elsewhere.map(HeadsDir::new);
        let heads = heads.map(|dir| HeadWriter::new(HeadsDir::new(dir), server, elsewhere));
        let mut work = Work {
            key,
            earlier,
            destroyed,
            renewed,
            heads,
            publisher: None,
            before: None,
            vouched: false,
            trusted: Trusted::default(),
            last: None,
            ended: false,
        };
        work.trusted = work.own();
        Self { every, work: Arc::new(Mutex::new(work)), going: Arc::default() }
    }

    pub fn state(&self) -> SealState {
        self.going().state(Instant::now())
    }

    fn going(&self) -> MutexGuard<'_, Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the present round comes on.
    fn step(&self) {
        self.going().step = Some(Instant::now());
    }

    /// Seals until the store is gone. `store` answers `None` then.
    pub async fn run(self, store: impl Fn() -> Option<Store>) {
        let mut sealed: Option<Position> = None;
        loop {
            tokio::time::sleep(self.every).await;
            let Some(store) = store() else { return };
            let mut work = self.work.lock().await;
            if work.ended {
                return;
            }
            if sealed == Some(*store.watch_head().borrow()) {
                // What was published last is to be remembered, too, when nothing comes behind it.
                if let Some(publisher) = &mut work.publisher
                    && let Err(error) = publisher.note(&store, false).await
                {
                    // It is tried again: whatever it is, the next round that seals says it.
                    tracing::debug!(%error, "it cannot be noted what was published");
                }
                continue;
            }
            // Why one failed, it has kept; it is made again.
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
        self.step();
        let (sealed_to, result) = match self.seal(store, work).await {
            Ok(sealed) => {
                let position = sealed.last.as_ref().map_or(0, |seal| seal.last);
                (Some(position), self.publish(store, work, sealed).await.map(|()| position))
            }
            Err(error) => (None, Err(error)),
        };
        let mut going = self.going();
        going.step = None;
        let state = &mut going.state;
        state.sealed_to = sealed_to.unwrap_or(state.sealed_to);
        let trouble = result.as_ref().err().map(|error| match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
        if let (Some(why), None) = (&trouble, &state.trouble) {
            match sealed_to {
                Some(_) => tracing::error!(error = why, "the log's heads cannot be published"),
                None => tracing::error!(error = why, "the log cannot be sealed"),
            }
        }
        state.trouble = trouble;
        result
    }

    /// Seals everything that is stored.
    ///
    /// Refuses when the chain in the database is not the one that was published: extending it would
    /// cover up that somebody cut or rewrote it. Or when it ends with a block that is none of ours: whoever
    /// may add rows could end the sealing with one, and have it signed for.
    async fn seal(&self, store: &Store, work: &mut Work) -> Result<Sealed, Error> {
        let incarnation = store.incarnation();
        work.renew().await?;
        let mut unusable = None;
        if let Some(writer) = work.heads.take() {
            let again = writer.clone();
            match Publisher::begin(store, writer, work.keys(), work.destroyed.clone()).await {
                Ok(publisher) => work.publisher = Some(publisher),
                Err(error) => {
                    work.heads = Some(again);
                    // A directory that cannot be used stops the publishing alone.
                    match &error {
                        Error::Io { source, .. } if !is_ours(source) => unusable = Some(error),
                        _ => return Err(error),
                    }
                }
            }
        }
        // Whoever may write there must not stop the sealing: where it fails, publishing fails and says so.
        if let Err(error) = work.vouch(incarnation).await {
            tracing::debug!(%error, "no key can be vouched for");
        }
        if let Some(head) = work.publisher.as_ref().and_then(Publisher::newest)
            && !publish::is_in_chain(store, head).await?
        {
            return Err(Error::Forked { block: head.block, position: head.position });
        }
        let mut previous = work.follow(store).await?;
        let before =
            *work.before.get_or_insert_with(|| previous.as_ref().map_or(0, |seal| seal.block));
        loop {
            let after = previous.as_ref().map_or(0, |seal| seal.last);
            let events = store.sealable(after, BLOCK).await?;
            if events.is_empty() {
                break;
            }
            work.renew().await?;
            self.step();
            let next = Seal::over(&events, previous.as_ref(), incarnation, &work.key, now_micros());
            let next = next.ok_or(Error::Unsealable { after })?;
            previous = match store.insert_seal(next.clone()).await? {
                true => Some(next),
                // Another server sealed first, or this life of the log has ended.
                false => {
                    let last = work.follow(store).await?;
                    if last.as_ref().map(|seal| seal.block) == previous.as_ref().map(|p| p.block) {
                        return Err(Error::Ended { incarnation });
                    }
                    last
                }
            };
            work.last.clone_from(&previous);
        }
        Ok(Sealed { before, last: previous, unusable })
    }

    /// Publishes what is sealed.
    async fn publish(&self, store: &Store, work: &mut Work, sealed: Sealed) -> Result<(), Error> {
        if let Some(error) = sealed.unusable {
            return Err(error);
        }
        let keys = work.keys();
        if let Some(publisher) = &mut work.publisher {
            publisher.come_back(store, keys, work.destroyed.clone()).await?;
        }
        work.vouch(store.incarnation()).await?;
        let last_time = work.ended;
        if let (Some(publisher), Some(seal)) = (&mut work.publisher, &sealed.last) {
            let step = || self.step();
            let published =
                publisher.publish(store, &work.key, &work.trusted, sealed.before, seal, step).await;
            // Also of one that comes no further: what was published before is not published again.
            publisher.note(store, last_time).await.and(published)?;
        }
        Ok(())
    }
}

/// How far a round has sealed.
struct Sealed {
    /// The last block before the first round of all.
    before: u64,
    last: Option<Seal>,
    /// Why nothing can be published.
    unusable: Option<Error>,
}

impl Work {
    /// All keys that sign or signed.
    fn keys(&self) -> Vec<VerifyingKey> {
        self.earlier.iter().copied().chain([self.key.verifying_key()]).collect()
    }

    /// Whose blocks are ours, as far as this process knows by itself.
    fn own(&self) -> Trusted {
        let living = self.keys().into_iter().filter(|key| !self.destroyed.contains(key));
        let destroyed = self.destroyed.iter();
        destroyed.fold(Trusted::new(living), |trusted, key| trusted.and_destroyed(*key, None))
    }

    /// The end of the chain. What somebody else has put there since the last look is looked at first.
    async fn follow(&mut self, store: &Store) -> Result<Option<Seal>, Error> {
        let last = store.last_seal().await?;
        if last == self.last {
            return Ok(last);
        }
        let began = self.publisher.as_ref().map_or_else(Vec::new, |to| to.began().to_vec());
        self.last = match verify::end(store, Some(&self.trusted), &began).await {
            // Another server may have taken up a new key since this one asked for its own.
            Err(Error::NotOurs { .. }) if self.renewed.is_some() => {
                self.renew().await?;
                verify::end(store, Some(&self.trusted), &began).await?
            }
            other => other?,
        };
        Ok(self.last.clone())
    }

    /// Says where heads are published that the key speaks for those before it.
    async fn vouch(&mut self, incarnation: Uuid) -> Result<(), Error> {
        let Some(publisher) = self.publisher.as_mut().filter(|_| !self.vouched) else {
            return Ok(());
        };
        let all = publisher.vouch(incarnation, self.key.clone(), self.earlier.clone()).await?;
        self.trusted = self.own().and_vouched(&all);
        self.vouched = true;
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), Error> {
        let Some(renewed) = self.renewed.clone() else { return Ok(()) };
        let (key, earlier) = renewed().await.map_err(|reason| Error::NoSealKey { reason })?;
        if key.verifying_key() != self.key.verifying_key() || earlier != self.earlier {
            self.vouched = false;
            (self.key, self.earlier) = (key, earlier);
            self.trusted = self.own();
        }
        Ok(())
    }
}

pub(crate) fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_comes_no_further_is_trouble() {
        let now = Instant::now();
        let state = SealState { sealed_to: 7, trouble: None };
        let mut going = Going { state: state.clone(), step: Some(now) };
        assert_eq!(going.state(now + STUCK), state, "it may still be at work");
        let stuck = going.state(now + STUCK + Duration::from_secs(2));
        assert_eq!(stuck.trouble.as_deref(), Some("sealing has been stuck for 12 s"));
        going.step = None;
        assert_eq!(going.state(now + 9 * STUCK), state, "there was nothing to do");
    }
}
