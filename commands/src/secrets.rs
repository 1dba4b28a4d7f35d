//! Secrets at rest: AES-SIV under a data key for each version, the data key under the master key.
//!
//! The associated data of both is table, record, column, version and master key id, so a ciphertext
//! that was moved to another row, or is given back in another version, does not decrypt.

#[cfg(test)]
mod credential_tests;
mod following;
mod reseal;
mod rotation;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use rotation::{Generation, Rotated};

use std::sync::Arc;
use std::time::Duration;

use aes_siv::siv::Aes256Siv;
use aes_siv::{Key, KeyInit as _};
use async_trait::async_trait;
use proximity_domain::keys::{Keys, STREAM};
use proximity_domain::{ApplicationId, SecretId};
use proximity_eventstore::{Append, AppendError, Guard, Lane, SideWrite, Store, Value, tables};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::{Clock as _, Micros, SystemClock};
use crate::dispatch::Unit;
use crate::keys::{KeyBytes, KeyError, Keyring, MasterKeys, fill};
use crate::ports::SecretReader;
use crate::rows::{Columns, text, unreadable};
use crate::secret_uses::{By, SecretUses};
use crate::{Error, Secret};

/// What a secret belongs to; it opens for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOwner {
    /// E.g. `host_connections`.
    pub table: &'static str,
    /// The record's id, e.g. a host id.
    pub record: String,
    /// E.g. `credential`, or the name of an environment variable.
    pub column: String,
}

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Secrets {
    store: Store,
    ring: Keyring,
    uses: Arc<SecretUses>,
}

/// The `table` of what belongs to an application.
const APPLICATIONS: &str = "applications";

/// A sentinel is this text, sealed: opening it shows that the key is the right one.
const SENTINEL: &[u8] = b"this installation's master key";

/// When to ask again a server that lacks a key: a person has to put it there.
const MISSING_RETRY: Duration = Duration::from_secs(30);

impl Secrets {
    /// Whether this database was ever sealed with a master key; asked before keys are loaded.
    pub async fn is_sealed(store: &Store) -> Result<bool, Error> {
        let rows = store.rows(&tables::KEY_SENTINEL, vec![], 1).await.map_err(unreadable)?;
        Ok(!rows.is_empty())
    }

    /// Checks the keys against the database's sentinels before anything else is written.
    pub async fn new(store: Store, keys: impl Into<Keyring>) -> Result<Self, Error> {
        let secrets = Self { store, ring: keys.into(), uses: Arc::default() };
        secrets.take_up().await?;
        secrets.forget_destroyed().await?;
        match secrets.check_sentinels().await? {
            Sentinels::Current => {}
            // The first one has a fixed id, so that of two servers with different keys one loses.
            Sentinels::None => {
                if !secrets.seal_sentinel("first").await? {
                    secrets.check_sentinels().await?;
                }
            }
            Sentinels::Older => secrets.register().await?,
        }
        Ok(secrets)
    }

    /// Checks the keys as [`Self::new`] does, and writes nothing.
    pub async fn check(store: Store, keys: impl Into<Keyring>) -> Result<Self, Error> {
        let secrets = Self { store, ring: keys.into(), uses: Arc::default() };
        secrets.check_sentinels().await?;
        Ok(secrets)
    }

    /// Which secrets were opened.
    pub fn uses(&self) -> &SecretUses {
        &self.uses
    }

    /// The keys as they are now, for what is derived from them.
    pub fn keys(&self) -> Arc<MasterKeys> {
        self.ring.keys()
    }

    /// The keys with all their later changes.
    pub fn ring(&self) -> &Keyring {
        &self.ring
    }

    /// Seals one version of a secret as a part of a unit of work, whose events name the id.
    ///
    /// Which key seals is read from the log and asserted: where a rotation moves on before the unit is
    /// stored, the unit is decided anew.
    pub async fn seal_into(
        &self,
        unit: &mut Unit<'_>,
        id: SecretId,
        owner: &SecretOwner,
        version: i64,
        secret: &Secret,
        now: Micros,
    ) -> Result<(), Error> {
        let state = unit.load::<Keys>(STREAM).await?;
        let sealing = match state.current {
            Some(generation) => Some(generation),
            // Before the first rotation there is one sentinel. The file's first key may be ahead of it.
            None => self.sentinel_ids().await?.into_iter().next(),
        };
        if let Some(generation) = &sealing {
            self.hold(generation).await?;
        }
        let keys = self.keys();
        let key_id = match sealing {
            // One that did not reach this server yet: what it holds may seal until the rotation ends.
            Some(new)
                if keys.by_id(&new).is_none() && state.leaving.contains(keys.current_id()) =>
            {
                keys.current_id().to_owned()
            }
            Some(generation) => generation,
            None => keys.current_id().to_owned(),
        };
        unit.write(self.sealed(&key_id, id, owner, version, secret, now)?);
        Ok(())
    }

    /// The row of a secret, sealed under a key that is held.
    fn sealed(
        &self,
        key_id: &str,
        id: SecretId,
        owner: &SecretOwner,
        version: i64,
        secret: &Secret,
        now: Micros,
    ) -> Result<SideWrite, Error> {
        let bound = bound_to(owner.table, &owner.record, &owner.column, version, key_id);
        let (wrapped_key, ciphertext) =
            self.wrap(&self.keys(), key_id, &bound, secret.expose().as_bytes())?;
        let row = vec![
            ("id", text(id)),
            ("record_table", text(owner.table)),
            ("record_id", text(&owner.record)),
            ("column_name", text(&owner.column)),
            ("version", Value::Integer(version)),
            ("key_id", text(key_id)),
            ("wrapped_key", Value::Bytes(wrapped_key)),
            ("ciphertext", Value::Bytes(ciphertext)),
            ("created_at", Value::Integer(now)),
        ];
        Ok(SideWrite::Insert { table: &tables::SECRETS, row })
    }

    /// Encrypts under a fresh data key, and that under a master key.
    fn wrap(
        &self,
        keys: &MasterKeys,
        key_id: &str,
        bound: &[Vec<u8>],
        plain: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut data_key = KeyBytes::new([0; 64]);
        fill(data_key.as_mut_slice()).map_err(unusable)?;
        let ciphertext = encrypt(&data_key, bound, plain)?;
        let master = self.master(keys, key_id)?;
        Ok((encrypt(master, bound, data_key.as_slice())?, ciphertext))
    }

    /// Opens a secret for the record that it must belong to.
    pub async fn unseal(&self, id: SecretId, owner: &SecretOwner) -> Result<Secret, Error> {
        self.unseal_by(id, owner, &By::program()).await
    }

    /// The same by whoever asks for it.
    pub async fn unseal_by(
        &self,
        id: SecretId,
        owner: &SecretOwner,
        by: &By,
    ) -> Result<Secret, Error> {
        let row = self.row(id).await?;
        self.hold(row.text("key_id")?).await?;
        self.unseal_row(&row, owner, by)
    }

    /// Sees to it that a key is held: another server may have begun to seal with a new one.
    async fn hold(&self, key_id: &str) -> Result<(), Error> {
        if self.keys().by_id(key_id).is_some() {
            return Ok(());
        }
        match self.take_up().await {
            Err(Error::Internal { context, source }) if source.is::<KeyError>() => {
                tracing::error!(generation = key_id, %source, context, "a master key is missing here");
                Err(missing(key_id))
            }
            other => other,
        }
    }

    /// The owner is the one that the caller expects, not the one that the row claims.
    fn unseal_row(&self, row: &Columns, owner: &SecretOwner, by: &By) -> Result<Secret, Error> {
        let key_id = row.text("key_id")?;
        let version = row.integer("version")?;
        let bound = bound_to(owner.table, &owner.record, &owner.column, version, key_id);
        let plain = self.unwrap(row, key_id, &bound)?;
        let plain = std::str::from_utf8(&plain).map_err(|_| does_not_open())?;
        self.uses.note(owner, by, SystemClock.now());
        Ok(Secret::new(plain.to_owned()))
    }

    fn unwrap(
        &self,
        row: &Columns,
        key_id: &str,
        bound: &[Vec<u8>],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let data_key =
            decrypt(self.master(&self.keys(), key_id)?, bound, row.bytes("wrapped_key")?)?;
        let data_key = <[u8; 64]>::try_from(data_key.as_slice())
            .map(KeyBytes::new)
            .map_err(|_| does_not_open())?;
        decrypt(&data_key, bound, row.bytes("ciphertext")?)
    }

    /// The version that a stored secret has; the next one is one more.
    pub async fn version(&self, id: SecretId) -> Result<i64, Error> {
        self.row(id).await?.integer("version")
    }

    /// Deletes a secret.
    pub fn forget(id: SecretId) -> SideWrite {
        SideWrite::Delete {
            table: &tables::SECRETS,
            filter: vec![("id", text(id))],
            guard: Guard::None,
        }
    }

    /// Deletes all secrets of an application, which belongs into the append that ends it: from then on
    /// only backups of the database have them, for as long as their key generation exists.
    pub fn forget_all(application: &ApplicationId) -> SideWrite {
        SideWrite::Delete {
            table: &tables::SECRETS,
            filter: vec![("record_table", text(APPLICATIONS)), ("record_id", text(application))],
            guard: Guard::None,
        }
    }

    async fn row(&self, id: SecretId) -> Result<Columns, Error> {
        let filter = vec![("id", text(id))];
        let rows = self.store.rows(&tables::SECRETS, filter, 1).await.map_err(unreadable)?;
        let missing = || Error::internal("a secret is missing", id.to_string());
        Ok(Columns(rows.into_iter().next().ok_or_else(missing)?))
    }

    fn master<'k>(&self, keys: &'k MasterKeys, id: &str) -> Result<&'k KeyBytes, Error> {
        keys.by_id(id).ok_or_else(|| missing(id))
    }

    /// Opens every sentinel; one that does not open is an error.
    async fn check_sentinels(&self) -> Result<Sentinels, Error> {
        let mut found = Sentinels::None;
        let keys = self.keys();
        for row in self.sentinels().await? {
            let id = row.text("key_id")?;
            self.check_sentinel(&keys, id, row.bytes("ciphertext")?)?;
            if found != Sentinels::Current {
                let current = id == keys.current_id();
                found = if current { Sentinels::Current } else { Sentinels::Older };
            }
        }
        Ok(found)
    }

    async fn sentinels(&self) -> Result<Vec<Columns>, Error> {
        sentinels_of(&self.store).await
    }

    fn check_sentinel(&self, keys: &MasterKeys, id: &str, sealed: &[u8]) -> Result<(), Error> {
        let bound = bound_to("key_sentinel", id, "ciphertext", 1, id);
        let unknown = || KeyError::Unknown { id: id.to_owned(), place: self.ring.place() };
        let key = keys.by_id(id).ok_or_else(|| unusable(unknown()))?;
        let opened = decrypt(key, &bound, sealed);
        if opened.is_ok_and(|plain| plain.as_slice() == SENTINEL) {
            Ok(())
        } else {
            Err(unusable(KeyError::Wrong { id: id.to_owned(), place: self.ring.place() }))
        }
    }

    /// The sentinel of the current key. Secrets are only ever stored under a key that has one.
    fn sentinel(&self, keys: &MasterKeys, row_id: &str) -> Result<SideWrite, Error> {
        let id = keys.current_id();
        let bound = bound_to("key_sentinel", id, "ciphertext", 1, id);
        let ciphertext = encrypt(self.master(keys, id)?, &bound, SENTINEL)?;
        let row = vec![
            ("id", text(row_id)),
            ("key_id", text(id)),
            ("ciphertext", Value::Bytes(ciphertext)),
        ];
        Ok(SideWrite::Insert { table: &tables::KEY_SENTINEL, row })
    }

    /// Stores the first sentinel; `false` when another server was faster.
    async fn seal_sentinel(&self, row_id: &str) -> Result<bool, Error> {
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::Outcome,
            streams: vec![],
            assertions: vec![],
            side: vec![self.sentinel(&self.keys(), row_id)?],
            metadata: crate::Actor::system("keys").metadata("keys.seal_sentinel").to_json(),
            fence: None,
            idempotency: None,
        };
        match self.store.append(append).await {
            Ok(_) => Ok(true),
            Err(AppendError::SideConflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The owner of a value of an application's environment.
pub fn of_application(application: &ApplicationId, name: &str) -> SecretOwner {
    let record = application.to_string();
    SecretOwner { table: APPLICATIONS, record, column: name.to_owned() }
}

#[async_trait]
impl SecretReader for Secrets {
    /// The name of the value is the row's: any value of this application may be opened.
    async fn open(
        &self,
        id: SecretId,
        application: &ApplicationId,
        by: &By,
    ) -> Result<Secret, Error> {
        let row = self.row(id).await?;
        self.hold(row.text("key_id")?).await?;
        let owner = of_application(application, row.text("column_name")?);
        self.unseal_row(&row, &owner, by)
    }
}

/// What the database says about the keys it was sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sentinels {
    /// It was never sealed.
    None,
    /// Only by keys that the current one has replaced.
    Older,
    Current,
}

/// The parts are separate inputs of SIV, so no two different lists look the same.
fn bound_to(table: &str, record: &str, column: &str, version: i64, key_id: &str) -> [Vec<u8>; 6] {
    [
        b"proximity secret v1".to_vec(),
        table.as_bytes().to_vec(),
        record.as_bytes().to_vec(),
        column.as_bytes().to_vec(),
        version.to_be_bytes().to_vec(),
        key_id.as_bytes().to_vec(),
    ]
}

fn encrypt(key: &KeyBytes, bound: &[Vec<u8>], plain: &[u8]) -> Result<Vec<u8>, Error> {
    let key = Key::<aes_siv::Aes256SivAead>::from_slice(key.as_slice());
    Aes256Siv::new(key)
        .encrypt(bound, plain)
        .map_err(|_| Error::internal("a secret cannot be sealed", "AES-SIV refused it"))
}

fn decrypt(key: &KeyBytes, bound: &[Vec<u8>], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let key = Key::<aes_siv::Aes256SivAead>::from_slice(key.as_slice());
    Aes256Siv::new(key).decrypt(bound, sealed).map(Zeroizing::new).map_err(|_| does_not_open())
}

fn does_not_open() -> Error {
    Error::internal("a secret does not open", "it was changed, or belongs to another record")
}

/// The key was replaced while this server was away: what to do about it is for whoever runs it.
async fn sentinels_of(store: &Store) -> Result<Vec<Columns>, Error> {
    let rows = store.rows(&tables::KEY_SENTINEL, vec![], 100).await.map_err(unreadable)?;
    Ok(rows.into_iter().map(Columns).collect())
}

fn missing(generation: &str) -> Error {
    Error::Unavailable {
        code: "keys.missing",
        detail: format!(
            "this server does not hold generation {generation} of the master key and can neither seal \
             nor open secrets; nothing was changed. Whoever runs it adds the line of that key to its \
             key file, from another server's file or from its copy"
        ),
        retry_after: MISSING_RETRY,
    }
}

fn unusable(error: KeyError) -> Error {
    Error::internal("the master key cannot be used", error)
}
