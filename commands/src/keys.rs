//! The master keys, which live outside the database, and the keys that are derived from them.
//!
//! A key file has one key per line: `<id> <base64 of 64 bytes>`. The first one seals, the others
//! only open what they once sealed. Lines that start with `#` are comments.

mod file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use file::KeyFile;

/// Why the master keys cannot be used. Nothing of a key is ever in here.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the master key file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot create the master key file {}", path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error(
        "the master key file {} may be read by others (mode {mode:o}): run chmod 600 on it",
        path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the master key file {} is missing, and this database holds secrets that only it opens",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("line {line} of the master key file is not `<id> <base64 of 64 bytes>`")]
    Malformed { line: usize },
    #[error("the master key file holds no key")]
    Empty,
    #[error("the system gives no random numbers")]
    Random(#[source] rand::rand_core::OsError),
    #[error("the database was sealed with master key {id}, which the key file does not hold")]
    Unknown { id: String },
    #[error("master key {id} is not the one that this database was sealed with")]
    Wrong { id: String },
}

/// 512 bits for AES-SIV: 256 to encrypt, 256 to authenticate.
pub(crate) type KeyBytes = Zeroizing<[u8; 64]>;

/// All master keys of an installation, the current one first.
#[derive(Clone)]
pub struct MasterKeys {
    keys: Vec<MasterKey>,
}

#[derive(Clone)]
struct MasterKey {
    id: String,
    bytes: KeyBytes,
}

/// What a derived key is for; a key never serves two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Marks guests as ours.
    GuestMarker,
    /// Fingerprints request bodies for idempotency keys.
    Idempotency,
    /// Seed of the Ed25519 key that signs the sealed chain.
    SealSigning,
    /// Hides user names that do not exist in audit streams and login counters.
    UnknownNames,
    /// Authenticates CSRF tokens.
    Csrf,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::GuestMarker => b"proximity/guest-marker/v1",
            Self::Idempotency => b"proximity/idempotency/v1",
            Self::SealSigning => b"proximity/seal-signing/v1",
            Self::UnknownNames => b"proximity/unknown-names/v1",
            Self::Csrf => b"proximity/csrf/v1",
        }
    }
}

/// A key for one purpose, named after the master key that it comes from.
#[derive(Clone)]
pub struct DerivedKey {
    pub id: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl DerivedKey {
    /// The key itself.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// Shows ids only.
impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// Shows the id only.
impl std::fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DerivedKey").field(&self.id).finish()
    }
}

impl MasterKeys {
    /// One fresh key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut id = [0; 4];
        fill(&mut id)?;
        let mut bytes = KeyBytes::new([0; 64]);
        fill(bytes.as_mut_slice())?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { keys: vec![MasterKey { id, bytes }] })
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || KeyError::Malformed { line: index + 1 };
            let (id, encoded) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
            let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| malformed())?);
            let bytes = <[u8; 64]>::try_from(decoded.as_slice()).map_err(|_| malformed())?;
            let twice = keys.iter().any(|key| key.id == id);
            if twice || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(malformed());
            }
            keys.push(MasterKey { id: id.to_owned(), bytes: KeyBytes::new(bytes) });
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// The text of a key file.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::from(
            "# Master key of a Proximity installation. Without it no stored credential can be read:\n\
             # keep a copy, but never in a backup of the database.\n",
        ));
        for key in &self.keys {
            text.push_str(&key.id);
            text.push(' ');
            text.push_str(&Zeroizing::new(STANDARD.encode(key.bytes.as_slice())));
            text.push('\n');
        }
        text
    }

    /// The id of the key that seals.
    pub fn current_id(&self) -> &str {
        self.keys.first().map_or("", |key| key.id.as_str())
    }

    /// A key by its id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&KeyBytes> {
        self.keys.iter().find(|key| key.id == id).map(|key| &key.bytes)
    }

    /// The key for a purpose, from the current master key.
    pub fn derive(&self, purpose: Purpose) -> DerivedKey {
        // There is always a first key: both constructors see to it.
        self.derive_all(purpose).swap_remove(0)
    }

    /// The keys for a purpose, the current one first: the others only verify.
    pub fn derive_all(&self, purpose: Purpose) -> Vec<DerivedKey> {
        let derive = |key: &MasterKey| {
            let mut bytes = Zeroizing::new([0; 32]);
            let expanded = Hkdf::<Sha256>::new(None, key.bytes.as_slice())
                .expand(purpose.label(), bytes.as_mut_slice());
            assert!(expanded.is_ok(), "HKDF-SHA256 gives up to 8160 bytes");
            DerivedKey { id: key.id.clone(), bytes }
        };
        self.keys.iter().map(derive).collect()
    }
}

/// Random bytes from the operating system.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    OsRng.try_fill_bytes(bytes).map_err(KeyError::Random)
}
