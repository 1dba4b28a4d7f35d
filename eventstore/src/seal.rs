//! The sealed chain: hashes of the stored bytes, block by block, each block signed.
//!
//! A block holds one SHA-256 (a leaf) for each of its events. Its own hash covers the life of the log
//! that it was made in, its number, range and time, the hash of the block before, and its leaves; the
//! signature covers that hash. Whoever changes a stored event has to change every later block and sign
//! it; whoever cuts the tail off, or holds the key, is found only by a head that was published elsewhere.

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::append::Position;
use crate::signed::key_id;

/// Most events in one block.
pub(crate) const BLOCK: usize = 1_000;
/// What the first block follows.
const GENESIS: [u8; 32] = [0; 32];

/// SHA-256 of one event's stored bytes.
pub(crate) type Leaf = [u8; 32];

/// One event as far as the chain is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealable {
    pub position: Position,
    /// As it says itself; `None` when the column holds no number.
    pub recorded_at: Option<i64>,
    /// `None` when a column holds what no event of ours can hold.
    pub leaf: Option<Leaf>,
}

/// One block of the chain, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Dense, starting at 1.
    pub block: u64,
    /// The life of the log in which it was made.
    pub incarnation: Uuid,
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

/// What a head is held against: a block without its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub block: u64,
    pub last: Position,
    pub hash: Vec<u8>,
    pub incarnation: Uuid,
}

impl Link {
    pub(crate) fn of(seal: &Seal) -> Self {
        let Seal { block, last, incarnation, .. } = *seal;
        Self { block, last, hash: seal.hash.clone(), incarnation }
    }
}

impl Seal {
    /// Seals `events`, which follow `previous`; `None` when there are none, or not one after another.
    pub(crate) fn over(
        events: &[Sealable],
        previous: Option<&Self>,
        incarnation: Uuid,
        key: &SigningKey,
        sealed_at: i64,
    ) -> Option<Self> {
        let first = previous.map_or(0, |seal| seal.last) + 1;
        let last = events.last()?.position;
        let mut leaves = Vec::with_capacity(events.len() * 32);
        for (event, position) in events.iter().zip(first..) {
            if event.position != position {
                return None;
            }
            leaves.extend(event.leaf?);
        }
        let block = previous.map_or(0, |seal| seal.block) + 1;
        let mut seal = Self {
            block,
            incarnation,
            first,
            last,
            leaves,
            hash: Vec::new(),
            key_id: key_id(&key.verifying_key()),
            signature: Vec::new(),
            sealed_at,
        };
        seal.hash = seal.expected_hash(previous.map(|seal| seal.hash.as_slice()));
        seal.signature = key.sign(&seal.hash).to_bytes().to_vec();
        Some(seal)
    }

    /// What its hash has to be after a block with hash `previous` (`None`: the first one).
    pub(crate) fn expected_hash(&self, previous: Option<&[u8]>) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(b"proximity seal 2");
        hash.update(self.incarnation.as_bytes());
        hash.update(self.block.to_be_bytes());
        hash.update(self.first.to_be_bytes());
        hash.update(self.last.to_be_bytes());
        hash.update(self.sealed_at.to_be_bytes());
        hash.update(previous.unwrap_or(&GENESIS));
        hash.update(&self.leaves);
        hash.finalize().to_vec()
    }

    /// The block that `head` was published of, made anew from events; `leaves` are those after the
    /// block before.
    pub(crate) fn of_head(head: &crate::heads::Head, first: Position, leaves: Vec<u8>) -> Self {
        Self {
            block: head.block,
            incarnation: head.incarnation,
            first,
            last: head.position,
            leaves,
            hash: Vec::new(),
            key_id: String::new(),
            signature: Vec::new(),
            sealed_at: head.sealed_at,
        }
    }

    /// Whether its numbers are those of the block behind `previous`, with a leaf for each event.
    pub(crate) fn stands_behind(&self, previous: Option<&Link>) -> bool {
        let (block, last) = previous.map_or((0, 0), |link| (link.block, link.last));
        self.block == block + 1
            && self.first == last + 1
            && self.last >= self.first
            && self.leaves.len() as u64 == (self.last - self.first + 1).saturating_mul(32)
    }

    /// Whether `key` signed its hash.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        Signature::from_slice(&self.signature)
            .is_ok_and(|signature| key.verify(&self.hash, &signature).is_ok())
    }
}

/// The leaves of a log one after another, as one digest for every position that is asked for.
pub(crate) struct Digest {
    hash: Sha256,
    /// The last position that is in it.
    pub to: Position,
}

impl Digest {
    pub fn new() -> Self {
        let mut hash = Sha256::new();
        hash.update(b"proximity log 1");
        Self { hash, to: 0 }
    }

    /// Takes the next event in; one that is not the next is left out, and so are all behind it.
    pub fn take(&mut self, position: Position, leaf: &Leaf) {
        if position == self.to + 1 {
            self.hash.update(leaf);
            self.to = position;
        }
    }

    /// What it has come to, in hexadecimal digits.
    pub fn now(&self) -> String {
        crate::hex(&self.hash.clone().finalize())
    }
}

/// SHA-256 of an event's stored bytes; lengths keep neighbouring texts apart. The texts are, in this
/// order: aggregate type and id, event type and version, payload, metadata.
pub(crate) fn leaf(position: i64, sequence: i64, recorded_at: i64, texts: [&[u8]; 6]) -> Leaf {
    let mut hash = Sha256::new();
    hash.update(b"proximity event 1");
    hash.update(position.to_be_bytes());
    hash.update(sequence.to_be_bytes());
    hash.update(recorded_at.to_be_bytes());
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}
