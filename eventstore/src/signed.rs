//! Statements that are signed with the key of the log, and whose keys are trusted.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::append::Position;
use crate::error::Error;
use crate::{hex, unhex};

/// Short name of a key: the first 16 hexadecimal digits of the SHA-256 of its public half.
pub fn key_id(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.as_bytes())[..8])
}

/// The public half as it is handed out: 64 hexadecimal digits.
pub fn public_key_text(key: &VerifyingKey) -> String {
    hex(key.as_bytes())
}

/// Reads what [`public_key_text`] wrote; blank space around it does not matter.
pub fn parse_public_key(text: &str) -> Option<VerifyingKey> {
    let bytes = <[u8; 32]>::try_from(unhex(text.trim())?).ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

/// Something that can be signed; no kind is ever taken for another.
pub trait Statement: Serialize {
    const KIND: &'static str;
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    pub statement: T,
    /// Which key signed it, see [`key_id`].
    pub key_id: String,
    /// Over the kind and the statement's JSON, in hexadecimal digits.
    pub signature: String,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement.
    pub fn new(statement: T, key: &SigningKey) -> Result<Self, Error> {
        let signature = hex(&key.sign(&bytes(&statement)?).to_bytes());
        Ok(Self { statement, key_id: key_id(&key.verifying_key()), signature })
    }

    /// Whether one of the trusted keys signed it.
    pub fn is_trusted(&self, trusted: &Trusted) -> bool {
        let signed = || {
            let key = trusted.key(&self.key_id)?;
            let signature = Signature::from_slice(&unhex(&self.signature)?).ok()?;
            key.verify(&bytes(&self.statement).ok()?, &signature).ok()
        };
        signed().is_some()
    }
}

fn bytes<T: Statement>(statement: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = format!("proximity {} 1\n", T::KIND).into_bytes();
    let written = serde_json::to_writer(&mut bytes, statement);
    written.map_err(|error| Error::malformed(error.to_string()))?;
    Ok(bytes)
}

/// That a key signed for this installation, said by another one that did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// See [`public_key_text`].
    pub public_key: String,
}

impl Statement for Vouched {
    const KIND: &'static str = "key";
}

/// The keys whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    keys: BTreeMap<String, VerifyingKey>,
    /// Those that were destroyed, and the event that says so, when this log has it.
    destroyed: BTreeMap<String, Option<Position>>,
}

impl Trusted {
    /// Those that the caller knows from elsewhere than the database.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        let keys = keys.into_iter().map(|key| (key_id(&key), key)).collect();
        Self { keys, destroyed: BTreeMap::new() }
    }

    /// Adds a key that was destroyed, by the event at this position: what it had sealed still counts,
    /// and it speaks for nothing new.
    #[must_use]
    pub fn and_destroyed(mut self, key: VerifyingKey, at: Option<Position>) -> Self {
        let id = key_id(&key);
        self.destroyed.insert(id.clone(), at);
        self.keys.insert(id, key);
        self
    }

    /// The same of a key that is only known by name so far; whether its signatures count at all is for
    /// those that vouch for it.
    #[must_use]
    pub fn and_ended(mut self, key_id: &str, at: Position) -> Self {
        self.destroyed.insert(key_id.to_owned(), Some(at));
        self
    }

    /// Those that can still sign.
    #[must_use]
    pub(crate) fn without(mut self, keys: &[VerifyingKey]) -> Self {
        let gone: Vec<String> = keys.iter().map(key_id).collect();
        self.keys.retain(|id, _| !gone.contains(id));
        self
    }

    /// Those that were not destroyed.
    #[must_use]
    pub(crate) fn living(&self) -> Self {
        let mut this = self.clone();
        this.keys.retain(|id, _| !this.destroyed.contains_key(id));
        this
    }

    /// When a key was destroyed: `None` when it was not, `Some(None)` when this log does not say.
    pub(crate) fn destroyed(&self, id: &str) -> Option<Option<Position>> {
        self.destroyed.get(id).copied()
    }

    /// Adds the keys that a trusted one vouches for, and those that these vouch for.
    #[must_use]
    pub fn and_vouched(mut self, vouched: &[Signed<Vouched>]) -> Self {
        loop {
            let before = self.keys.len();
            let speaks = |one: &&Signed<Vouched>| {
                self.destroyed(&one.key_id).is_none() && one.is_trusted(&self)
            };
            for one in vouched.iter().filter(speaks).collect::<Vec<_>>() {
                if let Some(key) = parse_public_key(&one.statement.public_key) {
                    self.keys.insert(key_id(&key), key);
                }
            }
            if self.keys.len() == before {
                return self;
            }
        }
    }

    /// The key of this name.
    pub fn key(&self, id: &str) -> Option<&VerifyingKey> {
        self.keys.get(id)
    }

    /// The names of all.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }
}
