//! The sealed chain: hashes of the stored bytes, block by block, signed and published outside.
//!
//! A block holds one SHA-256 (a leaf) for each of its events. Its own hash covers the log's
//! incarnation, its number and range, the hash of the block before, and its leaves; the signature
//! covers that hash. Whoever changes a stored event has to change every later block and sign it;
//! whoever cuts the tail off, or holds the key, is found only by a head that was published elsewhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::append::{Position, Recorded};
use crate::error::Error;
use crate::hex;

/// Most events in one block.
pub(crate) const BLOCK: usize = 1_000;
/// What the first block follows.
const GENESIS: [u8; 32] = [0; 32];

/// One block of the chain, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Dense, starting at 1.
    pub block: u64,
    pub first: Position,
    pub last: Position,
    /// SHA-256 of each event, one after another.
    pub leaves: Vec<u8>,
    pub hash: Vec<u8>,
    /// Which key signed it, see [`key_id`].
    pub key_id: String,
    pub signature: Vec<u8>,
    /// Microseconds since 1970.
    pub sealed_at: i64,
}

impl Seal {
    /// Seals `events`, which follow `previous` without a gap and are not empty.
    pub(crate) fn over(
        events: &[Recorded],
        previous: Option<&Self>,
        incarnation: Uuid,
        key: &SigningKey,
        sealed_at: i64,
    ) -> Option<Self> {
        let (first, last) = (events.first()?.position, events.last()?.position);
        let leaves: Vec<u8> = events.iter().flat_map(leaf).collect();
        let block = previous.map_or(0, |seal| seal.block) + 1;
        let mut seal = Self {
            block,
            first,
            last,
            leaves,
            hash: Vec::new(),
            key_id: key_id(&key.verifying_key()),
            signature: Vec::new(),
            sealed_at,
        };
        seal.hash = seal.expected_hash(previous.map(|seal| seal.hash.as_slice()), incarnation);
        seal.signature = key.sign(&seal.hash).to_bytes().to_vec();
        Some(seal)
    }

    /// What its hash has to be after a block with hash `previous` (`None`: the first one).
    pub(crate) fn expected_hash(&self, previous: Option<&[u8]>, incarnation: Uuid) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(b"proximity seal 1");
        hash.update(incarnation.as_bytes());
        hash.update(self.block.to_be_bytes());
        hash.update(self.first.to_be_bytes());
        hash.update(self.last.to_be_bytes());
        hash.update(previous.unwrap_or(&GENESIS));
        hash.update(&self.leaves);
        hash.finalize().to_vec()
    }

    /// Whether `key` signed its hash.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        Signature::from_slice(&self.signature)
            .is_ok_and(|signature| key.verify(&self.hash, &signature).is_ok())
    }
}

/// Short name of a key: the first 16 hexadecimal digits of the SHA-256 of its public half.
pub fn key_id(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.as_bytes())[..8])
}

/// SHA-256 of an event's stored bytes; lengths keep neighbouring texts apart.
pub(crate) fn leaf(recorded: &Recorded) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"proximity event 1");
    hash.update(recorded.position.to_be_bytes());
    hash.update(recorded.sequence.to_be_bytes());
    hash.update(recorded.recorded_at.to_be_bytes());
    for text in [
        &recorded.aggregate_type,
        &recorded.aggregate_id,
        &recorded.event_type,
        &recorded.event_version,
        &recorded.payload,
        &recorded.metadata,
    ] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

/// The head of the chain as published: enough to notice that the log was cut or written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedHead {
    pub incarnation: Uuid,
    pub block: u64,
    pub last_position: Position,
    /// In hexadecimal digits, as the signature.
    pub hash: String,
    pub key_id: String,
    pub signature: String,
    /// Microseconds since 1970.
    pub sealed_at: i64,
}

impl PublishedHead {
    pub(crate) fn of(seal: &Seal, incarnation: Uuid) -> Self {
        Self {
            incarnation,
            block: seal.block,
            last_position: seal.last,
            hash: hex(&seal.hash),
            key_id: seal.key_id.clone(),
            signature: hex(&seal.signature),
            sealed_at: seal.sealed_at,
        }
    }

    fn path(dir: &Path, incarnation: Uuid) -> PathBuf {
        dir.join(format!("sealed-head-{incarnation}.json"))
    }

    /// What was published last for this life of the log.
    pub fn read(dir: &Path, incarnation: Uuid) -> Result<Option<Self>, Error> {
        let path = Self::path(dir, incarnation);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        match serde_json::from_slice(&text) {
            Ok(head) => Ok(Some(head)),
            Err(_) => Err(Error::malformed(path.display().to_string())),
        }
    }

    /// Replaces what was published, so that a crash leaves either head whole.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = Self::path(dir, self.incarnation);
        let new = path.with_extension("json.new");
        let text = serde_json::to_vec(self).map_err(|error| Error::malformed(error.to_string()))?;
        let mut file = std::fs::File::create(&new).map_err(Error::io(&new))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io(&new))?;
        std::fs::rename(&new, &path).map_err(Error::io(&path))?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
    }
}
