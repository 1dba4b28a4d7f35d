//! Publishes the head of each block, and lets the database remember which ones were.

use std::time::{Duration, Instant};

use ed25519_dalek::{SigningKey, VerifyingKey};
use uuid::Uuid;

use super::now_micros;
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadWriter, Life, Stretch, Survey};
use crate::hex;
use crate::kept;
use crate::seal::{Link, Seal};
use crate::signed::{Signed, Trusted, Vouched};
use crate::store::Store;
use crate::task::blocking;
use crate::verify::{self, statements};

/// Blocks whose heads are written at once.
const PAGE: usize = 64;
/// How far the database's memory may lie behind: a write of its own for each round is too much.
const NOTED: Duration = Duration::from_secs(5);
/// How long until a directory that is not what it was is read again.
const AGAIN: Duration = Duration::from_secs(30);
/// A block that is older than this has been published, in microseconds.
const SETTLED: i64 = 60_000_000;

/// Which heads of a life a server has published, as the database remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub server: String,
    pub incarnation: Uuid,
    /// The first block of all, and the one from which on each block has a head: programs before this
    /// one published only the newest block of each round.
    pub first_block: u64,
    pub each_from: u64,
    pub last_block: u64,
    pub last_position: Position,
}

/// Where one server publishes.
pub(super) struct Publisher {
    writer: Option<HeadWriter>,
    server: String,
    row: Option<Published>,
    /// The next block to publish; `None` before anything was.
    next: Option<u64>,
    /// The newest head in the directory.
    newest: Option<Head>,
    /// What was signed for where the log's present life began.
    began: Vec<Life>,
    noted: Option<(Instant, u64)>,
    /// When it was last looked whether what is gone is back, and what this server had there then.
    looked: Option<(Instant, Vec<Stretch>)>,
}

impl Publisher {
    /// Looks at what was published before, by this server and by others.
    pub async fn begin(
        store: &Store,
        mut writer: HeadWriter,
        keys: Vec<VerifyingKey>,
        destroyed: Vec<VerifyingKey>,
    ) -> Result<Self, Error> {
        let (dir, server) = (writer.dir().clone(), writer.server().to_owned());
        let incarnation = store.incarnation();
        // Before the heads are: others may add some meanwhile.
        let mut rows = store.published().await?;
        rows.retain(|row| row.incarnation == incarnation);
        let kept = kept::statements(store).await?;
        let (listing, own) = (dir.clone(), writer.clone());
        let (newest, all, earliest, lives, said, is_here, other, alive) = blocking(move || {
            let (trusted, said, _) = statements(&listing, kept, Trusted::new(keys))?;
            // Whoever may add lines there must not stop the sealing with one.
            let alive = trusted.clone().without(&destroyed);
            let newest = listing.survey(incarnation, &alive)?;
            // What a key signed that was destroyed since is here all the same.
            let all = match destroyed.is_empty() {
                true => (newest.newest.clone(), newest.newest_in),
                false => {
                    let all = listing.survey(incarnation, &trusted)?;
                    (all.newest, all.newest_in)
                }
            };
            let newest = newest.newest.map(|head| head.statement);
            let earliest = listing.earliest(incarnation)?.map(|head| head.statement.block);
            let (is_here, other) =
                (own.is_known(incarnation)?, own.elsewhere(incarnation, &alive)?);
            Ok((newest, all, earliest, listing.incarnations()?, said, is_here, other, alive))
        })
        .await?;
        // What a key says that is in other hands must not get into the database.
        if let Err(error) = kept::keep_all(store, dir.clone(), &alive).await {
            tracing::warn!(%error, "the statements of restores were not kept in the database");
        }
        let last = store.last_seal().await?;
        let is_other = match &last {
            Some(seal) => seal.incarnation != incarnation,
            None => lives.iter().any(|life| *life != incarnation),
        };
        let began = said.into_iter().map(|said| said.life);
        let began: Vec<Life> = began.filter(|life| life.incarnation == incarnation).collect();
        if is_other && began.is_empty() {
            tracing::error!(
                "the log has another incarnation and no signed restore says why: if it was restored \
                 on purpose, stop this server and run `proximity audit restored --note TEXT`"
            );
        }
        let known = rows.iter().max_by_key(|row| row.last_block).cloned();
        let row = rows.into_iter().find(|row| row.server == server);
        let found = newest.as_ref().map(|head| head.block);
        let attested = found.max(other.as_ref().map(|head| head.block));
        // What it published is missing here, and known all the same: by heads of others, or of the shell.
        let is_gone = |row: &Published| found.is_none_or(|found| found < row.last_block);
        let again = row
            .as_ref()
            .filter(|row| (!is_here || is_gone(row)) && attested >= Some(row.last_block));
        let again = again.map(|row| match found {
            Some(found) if is_here => found + 1,
            _ => row.each_from,
        });
        let (here, newest_in) = all;
        let here = here.map(|head| head.statement.block);
        let is_missed = |row: &Published| here < Some(row.last_block);
        if again.is_none() && row.as_ref().is_some_and(is_missed) {
            writer.miss();
            tracing::error!(
                heads = %dir.path().display(),
                "heads that this server had published are gone, and it publishes none until they are back: \
                 run `proximity audit verify`"
            );
        } else if let (Some(_), Some(file)) = (&row, newest_in)
            && (is_here || again.is_none())
        {
            writer.expect(file);
        }
        let reached = known.as_ref().map(|row| row.last_block).max(settled(&last, incarnation));
        if row.is_none() && found < reached {
            tracing::warn!(
                heads = %dir.path().display(),
                "heads of blocks that were made before this server came are not here: they were \
                 published elsewhere, or never, or they are gone, and the log may have been cut off \
                 with them: run `proximity audit verify`"
            );
        }
        if let Some(known) = known
            && last.as_ref().is_none_or(|seal| seal.block < known.last_block)
        {
            return Err(Error::Forked { block: known.last_block, position: known.last_position });
        }
        let next = found.max(row.as_ref().map(|row| row.last_block)).map(|block| block + 1);
        let next = again.or(next);
        let row = row.or_else(|| {
            let newest = newest.as_ref()?;
            Some(Published {
                server: server.clone(),
                incarnation,
                first_block: earliest.unwrap_or(newest.block).min(newest.block),
                each_from: newest.block + 1,
                last_block: newest.block,
                last_position: newest.position,
            })
        });
        let other = other.filter(|_| again.is_some());
        let newest = newest.into_iter().chain(other).max_by_key(|head| head.block);
        Ok(Self {
            writer: Some(writer),
            server,
            row,
            next,
            newest,
            began,
            noted: None,
            looked: None,
        })
    }

    /// Goes on where the newest head that this server had published is back: what was gone was a mount that
    /// was away, or had an older copy in its place.
    ///
    /// Publishes anew what this server had published, where none of it is left and heads of others are
    /// that are of the same chain: a mount that was away when it began is there now. That nothing of it was
    /// changed meanwhile, this process knows, or the others' heads tell.
    pub async fn come_back(
        &mut self,
        store: &Store,
        keys: Vec<VerifyingKey>,
        destroyed: Vec<VerifyingKey>,
    ) -> Result<(), Error> {
        let incarnation = store.incarnation();
        let Some((to, from)) = self.row.as_ref().map(|row| (row.last_block, row.each_from)) else {
            return Ok(());
        };
        // All heads are read for it: not each time, unless something has changed of its own.
        let looked = self.looked.clone().filter(|(at, _)| at.elapsed() < AGAIN);
        let found = self.with_writer(move |writer| {
            if writer.check(incarnation).is_ok() {
                return Ok(None);
            }
            let own = writer.own(incarnation)?;
            if looked.is_some_and(|(_, before)| before == own) {
                return Ok(None);
            }
            let (trusted, ..) = statements(writer.dir(), Vec::new(), Trusted::new(keys))?;
            let counted = if own.is_empty() { trusted.without(&destroyed) } else { trusted };
            let Survey { newest, newest_in, .. } = writer.dir().survey(incarnation, &counted)?;
            Ok(newest.zip(newest_in).map(|(head, file)| (head.statement, file, own)))
        });
        let Some((found, file, own)) = found.await? else { return Ok(()) };
        let is_known = !own.is_empty();
        self.looked = Some((Instant::now(), own));
        let known = match (&self.newest, is_known) {
            (Some(newest), false) => newest.block.max(found.block),
            // Only the directory can tell what is in it.
            (Some(_), true) | (None, _) => found.block,
        };
        if known < to || !is_in_chain(store, &found).await? {
            return Ok(());
        }
        if is_known {
            tracing::info!("the heads that this server had published are back");
            if let Some(writer) = &mut self.writer {
                writer.expect(file);
            }
            self.next = self.next.max(Some(found.block + 1));
            self.newest =
                self.newest.take().into_iter().chain([found]).max_by_key(|head| head.block);
            return Ok(());
        }
        tracing::info!(
            "heads of others are here, and none of this server: they are published anew"
        );
        if let Some(writer) = &mut self.writer {
            writer.forget();
        }
        self.next = Some(from);
        Ok(())
    }

    /// Says there that `key` speaks for those before it; returns all that is said there of keys.
    pub async fn vouch(
        &mut self,
        incarnation: Uuid,
        key: SigningKey,
        earlier: Vec<VerifyingKey>,
    ) -> Result<Vec<Signed<Vouched>>, Error> {
        self.with_writer(move |writer| {
            writer.check(incarnation)?;
            writer.dir().vouch(&key, &earlier)?;
            Ok(writer.dir().vouched()?.found)
        })
        .await
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut HeadWriter) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut writer = self.writer.take().ok_or(Error::Closed)?;
        let (writer, done) = blocking(move || {
            let done = work(&mut writer);
            Ok((writer, done))
        })
        .await?;
        self.writer = Some(writer);
        done
    }

    /// What was signed for where the log's present life began.
    pub fn began(&self) -> &[Life] {
        &self.began
    }

    /// The newest published head, which the chain must have.
    pub fn newest(&self) -> Option<&Head> {
        self.newest.as_ref()
    }

    /// Publishes what is sealed up to `last`; `before` is where the chain ended before this round. Calls
    /// `step` for each page.
    ///
    /// Signs for blocks that a trusted key signed, and that follow one another: the rows may have been
    /// changed since this server, or another one, made them.
    pub async fn publish(
        &mut self,
        store: &Store,
        key: &SigningKey,
        trusted: &Trusted,
        before: u64,
        last: &Seal,
        step: impl Fn(),
    ) -> Result<(), Error> {
        let incarnation = store.incarnation();
        let mut next = self.next.unwrap_or_else(|| (before + 1).min(last.block));
        while next <= last.block {
            let mut previous = verify::before(store, next).await?;
            let mut page = store.seals(next.saturating_sub(1), PAGE).await?;
            // What others have added since is looked at with the next round, and so is its key.
            page.retain(|seal| seal.block <= last.block);
            let Some(end) = page.last().map(|seal| seal.block) else { break };
            for seal in &page {
                // What another life made is not signed for here.
                if seal.incarnation == incarnation
                    && let Some(fault) = verify::flaw(seal, previous.as_ref(), Some(trusted))
                {
                    return Err(Error::NotOurs { fault: Box::new(fault) });
                }
                previous = Some(Link::of(seal));
            }
            let ours = page.iter().filter(|seal| seal.incarnation == incarnation);
            let heads = ours.map(|seal| Signed::new(Head::of(seal), key));
            let heads = heads.collect::<Result<Vec<_>, _>>()?;
            let (first, newest) = (heads.first().cloned(), heads.last().cloned());
            self.with_writer(move |writer| writer.add(&heads)).await?;
            step();
            next = end + 1;
            self.next = Some(next);
            if let (Some(first), Some(Signed { statement: newest, .. })) = (first, newest) {
                let row = self.row.get_or_insert_with(|| Published {
                    server: self.server.clone(),
                    incarnation,
                    first_block: first.statement.block,
                    each_from: first.statement.block,
                    last_block: 0,
                    last_position: 0,
                });
                row.last_block = newest.block;
                row.last_position = newest.position;
                self.newest = Some(newest);
            }
        }
        self.note(store, false).await
    }

    /// Lets the database know, at once when this is the `last` time.
    pub async fn note(&mut self, store: &Store, last: bool) -> Result<(), Error> {
        let Some(row) = &self.row else { return Ok(()) };
        let is_due = match self.noted {
            None => true,
            Some((when, block)) => block < row.last_block && (last || when.elapsed() > NOTED),
        };
        if is_due {
            store.note_published(row.clone()).await?;
            self.noted = Some((Instant::now(), row.last_block));
        }
        Ok(())
    }
}

/// Whether the chain has the block that a head is of.
pub(super) async fn is_in_chain(store: &Store, head: &Head) -> Result<bool, Error> {
    let known = store.links(head.block.saturating_sub(1), 1).await?;
    let same = |link: &Link| link.block == head.block && hex(&link.hash) == head.hash;
    Ok(known.first().is_some_and(same))
}

/// The last block of all, when its head has to be published by now.
fn settled(last: &Option<Seal>, incarnation: Uuid) -> Option<u64> {
    let seal = last.as_ref().filter(|seal| seal.incarnation == incarnation)?;
    (seal.sealed_at < now_micros() - SETTLED).then_some(seal.block)
}
