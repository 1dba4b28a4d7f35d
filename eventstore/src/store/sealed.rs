//! The log's sealed chain and its lives, as the store gives them to the sealer and the verifier.

use std::sync::Arc;

use uuid::Uuid;

use super::{Backend, Store};
use crate::append::Position;
use crate::error::Error;
use crate::seal::{Leaf, Link, Seal, Sealable};
use crate::sealer::{Published, SealState, Sealer, Sealing};

impl Store {
    /// The newest block of the sealed chain.
    pub async fn last_seal(&self) -> Result<Option<Seal>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.last_seal().await,
            Backend::Postgres(pg) => pg.reader.last_seal().await,
        }
    }

    /// At most `limit` blocks of the sealed chain after one, in order.
    pub async fn seals(&self, after: u64, limit: usize) -> Result<Vec<Seal>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.seals(after, limit).await,
            Backend::Postgres(pg) => pg.reader.seals(after, limit).await,
        }
    }

    /// Seals what is stored, now and from now on, as long as the store is open.
    pub fn seal_with(&self, sealing: Sealing) -> Result<(), Error> {
        if !self.inner.writable {
            return Err(Error::ReadOnly);
        }
        let sealer = Sealer::new(sealing);
        self.inner.sealer.set(sealer.clone()).map_err(|_| Error::Sealing)?;
        // It must not keep the store alive, and ends with it by itself.
        let store = Arc::downgrade(&self.inner);
        tokio::spawn(sealer.run(move || Some(Self { inner: store.upgrade()? })));
        Ok(())
    }

    /// How sealing goes; `None` when it is not switched on.
    pub fn seal_state(&self) -> Option<SealState> {
        Some(self.inner.sealer.get()?.state())
    }

    /// Extends the sealed chain; `false` when another server has done so, or this life has ended.
    pub(crate) async fn insert_seal(&self, seal: Seal) -> Result<bool, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.insert_seal(seal).await,
            Backend::Postgres(pg) => pg.insert_seal(&seal).await,
        }
    }

    /// At most `limit` blocks after one, without their leaves.
    pub(crate) async fn links(&self, after: u64, limit: usize) -> Result<Vec<Link>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.links(after, limit).await,
            Backend::Postgres(pg) => pg.reader.links(after, limit).await,
        }
    }

    /// At most `limit` events after a position as leaves, in order, as they are.
    pub(crate) async fn sealable(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Sealable>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.sealable(after, limit).await,
            Backend::Postgres(pg) => pg.reader.sealable(after, limit).await,
        }
    }

    /// The leaf that the event at `position` would have at `place`.
    pub(crate) async fn leaf_at(
        &self,
        position: Position,
        place: Position,
    ) -> Result<Option<Leaf>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.leaf_at(position, place).await,
            Backend::Postgres(pg) => pg.reader.leaf_at(position, place).await,
        }
    }

    /// Events before the first position, where nobody looks.
    pub(crate) async fn strays(&self) -> Result<u64, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.strays().await,
            Backend::Postgres(pg) => pg.reader.strays().await,
        }
    }

    /// Which heads were published of each life, by each server.
    pub(crate) async fn published(&self) -> Result<Vec<Published>, Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.readers.published().await,
            Backend::Postgres(pg) => pg.reader.published().await,
        }
    }

    /// Remembers which heads a server has published; it never forgets any.
    pub(crate) async fn note_published(&self, row: Published) -> Result<(), Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.note_published(row).await,
            Backend::Postgres(pg) => pg.note_published(&row).await,
        }
    }

    /// Keeps a fact about the installation; one of that name that says something else gives way.
    pub(crate) async fn keep_fact(&self, name: String, text: String) -> Result<(), Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.keep_fact(name, text).await,
            Backend::Postgres(pg) => pg.keep_fact(&name, &text).await,
        }
    }

    /// Begins another life of the log; this process has to end then.
    pub(crate) async fn set_incarnation(&self, to: Uuid) -> Result<(), Error> {
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.set_incarnation(to).await,
            Backend::Postgres(pg) => pg.set_incarnation(to).await,
        }
    }
}
