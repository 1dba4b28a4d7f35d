//! The master keys, which live outside the database, and the keys that are derived from them.
//!
//! A key file has one key per line: `<id> <base64 of 64 bytes>`, with the day it was made behind it
//! where that is known. The first one seals, the others only open what they once sealed. A line
//! `retired <id> marker=… seal=…` is what is left of a key that was destroyed: enough to recognise our
//! containers and old seals, and not enough to open anything. Lines that start with `#` are comments.

mod file;
mod recovery;
mod retired;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use file::KeyFile;
pub use recovery::{Recovery, RecoveryError};
pub use ring::Keyring;

use retired::Retired;

/// Why the master keys cannot be used. Nothing of a key is ever in here.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the master key file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot create the master key file {}", path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error("cannot remove {}, a draft of the master key file: it holds keys", path.display())]
    Left { path: PathBuf, source: std::io::Error },
    #[error(
        "the master key file {} may be read by others (mode {mode:o}): run chmod 600 on it",
        path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the master key file {} is missing, and this database holds secrets that only it opens: \
         put its copy back, or run `proximity keys import-recovery FILE`",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("the master key file {} is handed over by the system and cannot be written here", path.display())]
    ReadOnly { path: PathBuf },
    #[error(
        "the master key file {} is handed over by the system and cannot be written here, so nothing was \
         changed: stop the server, run `keys rotate` with PROXIMITY_MASTER_KEY_FILE set to a copy of that \
         file which can be written, hand that copy over instead, and start the server again",
        path.display()
    )]
    Handed { path: PathBuf },
    #[error(
        "the master key file {} is handed over by the system and still has the line of key {id}, so \
         nothing was changed: stop the server, run `keys destroy {id}` with PROXIMITY_MASTER_KEY_FILE set to \
         a copy of that file which can be written, hand that copy over instead, and start the server again",
        path.display()
    )]
    StillHanded { id: String, path: PathBuf },
    #[error("line {line} of the master key file is not `<id> <base64 of 64 bytes>`")]
    Malformed { line: usize },
    #[error("the master key file holds no key")]
    Empty,
    #[error(
        "the master key file {} holds no key that opens anything: add the line of the one that seals, from \
         another server's file or from its copy",
        path.display()
    )]
    Keyless { path: PathBuf },
    #[error("the system gives no random numbers")]
    Random(#[source] rand::rand_core::OsError),
    #[error(
        "the database was sealed with master key {id}, which the key file does not hold ({place}): \
         add the line of that key from another server's file, from a copy, or from a file in which \
         `keys rotate` was cut off, which has it before anything is sealed under it"
    )]
    Unknown { id: String, place: String },
    #[error(
        "master key {id} is not the one that this database was sealed with ({place}): the file \
         belongs to another installation or was changed; put the right one back"
    )]
    Wrong { id: String, place: String },
}

impl KeyError {
    /// Whether the file is one that this process may not write; waiting does not help then.
    fn is_forbidden(&self) -> bool {
        match self {
            Self::ReadOnly { .. } => true,
            Self::Create { source, .. } => {
                matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
            }
            _ => false,
        }
    }
}

/// 512 bits for AES-SIV: 256 to encrypt, 256 to authenticate.
pub(crate) type KeyBytes = Zeroizing<[u8; 64]>;

/// All master keys of an installation, the current one first.
#[derive(Clone)]
pub struct MasterKeys {
    keys: Vec<MasterKey>,
    retired: Vec<Retired>,
}

#[derive(Clone)]
struct MasterKey {
    id: String,
    bytes: KeyBytes,
    /// When it was made, as RFC 3339 has it; unknown for keys of older files.
    since: Option<String>,
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
        let since = time::OffsetDateTime::now_utc()
            .replace_nanosecond(0)
            .ok()
            .and_then(|now| now.format(&time::format_description::well_known::Rfc3339).ok());
        Ok(Self { keys: vec![MasterKey { id, bytes, since }], retired: Vec::new() })
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let this = Self::parse_any(text)?;
        if this.is_empty() { Err(KeyError::Empty) } else { Ok(this) }
    }

    /// The same where all keys of the file may have been destroyed.
    fn parse_any(text: &str) -> Result<Self, KeyError> {
        let mut this = Self { keys: Vec::new(), retired: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || KeyError::Malformed { line: index + 1 };
            if let Some(rest) = line.strip_prefix("retired ") {
                this.retired.push(Retired::parse(rest).ok_or_else(malformed)?);
                continue;
            }
            let mut words = line.split_whitespace();
            let (id, encoded) = words.next().zip(words.next()).ok_or_else(malformed)?;
            let moment = |word: &str| {
                let text = word.strip_prefix("since=")?;
                let rfc3339 = &time::format_description::well_known::Rfc3339;
                time::OffsetDateTime::parse(text, rfc3339).ok().map(|_| text.to_owned())
            };
            let since = match words.next() {
                None => None,
                Some(word) => Some(moment(word).ok_or_else(malformed)?),
            };
            let decoded = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| malformed())?);
            let bytes = <[u8; 64]>::try_from(decoded.as_slice()).map_err(|_| malformed())?;
            let twice = this.keys.iter().any(|key| key.id == id) || words.next().is_some();
            if twice || !is_id(id) {
                return Err(malformed());
            }
            this.keys.push(MasterKey { id: id.to_owned(), bytes: KeyBytes::new(bytes), since });
        }
        Ok(this)
    }

    /// Whether nothing in it opens anything; such keys are only ever in a file.
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
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
            if let Some(since) = &key.since {
                text.push_str(" since=");
                text.push_str(since);
            }
            text.push('\n');
        }
        for retired in &self.retired {
            text.push_str(&Zeroizing::new(retired.to_line()));
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

    /// The ids of all keys that open something, the current one first.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.id.clone()).collect()
    }

    /// The ids of those that were destroyed.
    pub fn retired_ids(&self) -> Vec<String> {
        self.retired.iter().map(|retired| retired.id.clone()).collect()
    }

    /// When a key was made, as far as the file says.
    pub fn since(&self, id: &str) -> Option<String> {
        self.keys.iter().find(|key| key.id == id).and_then(|key| key.since.clone())
    }

    /// The public halves of the seal keys of those that were destroyed: old seals still verify.
    pub fn retired_seal_keys(&self) -> Vec<[u8; 32]> {
        self.retired.iter().map(|retired| retired.seal).collect()
    }

    /// With another key in front, which seals from now on.
    pub(crate) fn led_by(&self, new: &Self) -> Self {
        let mut keys = new.keys.clone();
        keys.extend(self.keys.iter().filter(|key| new.by_id(&key.id).is_none()).cloned());
        Self { keys, retired: self.retired.clone() }
    }

    /// With this key in front; unchanged when it is not there.
    pub(crate) fn with_current(&self, id: &str) -> Self {
        let mut this = self.clone();
        // Stable: the others keep their order.
        this.keys.sort_by_key(|key| key.id != id);
        this
    }

    /// One key alone, as it is handed to another server.
    pub(crate) fn alone(id: &str, bytes: KeyBytes, since: Option<String>) -> Self {
        Self { keys: vec![MasterKey { id: id.to_owned(), bytes, since }], retired: Vec::new() }
    }

    /// Without these keys: only what recognises containers and old seals is left of them.
    pub(crate) fn without(&self, ids: &BTreeSet<String>) -> Self {
        let mut this = self.clone();
        let (gone, kept): (Vec<MasterKey>, _) =
            this.keys.into_iter().partition(|key| ids.contains(&key.id));
        this.keys = kept;
        this.retired.retain(|retired| gone.iter().all(|key| key.id != retired.id));
        this.retired.extend(gone.iter().map(Retired::of));
        this
    }

    /// With what another file has besides; a key that was destroyed here does not come back from there.
    fn joined(&self, other: &Self) -> Self {
        let mut this = self.clone();
        let is_gone = |id: &str| self.retired.iter().any(|retired| retired.id == id);
        let new = |key: &&MasterKey| self.by_id(&key.id).is_none() && !is_gone(&key.id);
        this.keys.extend(other.keys.iter().filter(new).cloned());
        let new = |retired: &&Retired| this.by_id(&retired.id).is_none() && !is_gone(&retired.id);
        let retired: Vec<Retired> = other.retired.iter().filter(new).cloned().collect();
        this.retired.extend(retired);
        this
    }

    /// The key for a purpose that has to stay the same while generations come and go: from the oldest
    /// one that is still held.
    pub fn derive_lasting(&self, purpose: Purpose) -> DerivedKey {
        match self.keys.last() {
            Some(oldest) => derive(oldest, purpose),
            None => self.derive(purpose),
        }
    }

    /// The key for a purpose, from the current master key.
    pub fn derive(&self, purpose: Purpose) -> DerivedKey {
        // There is always a first key: whoever reads a file without one gets an error.
        self.derive_all(purpose).swap_remove(0)
    }

    /// The keys for a purpose, the current one first: the others only verify.
    pub fn derive_all(&self, purpose: Purpose) -> Vec<DerivedKey> {
        let held = self.keys.iter().map(|key| derive(key, purpose));
        let retired = self.retired.iter().filter(|_| purpose == Purpose::GuestMarker);
        held.chain(retired.map(Retired::marker_key)).collect()
    }
}

fn derive(key: &MasterKey, purpose: Purpose) -> DerivedKey {
    let mut bytes = Zeroizing::new([0; 32]);
    let expanded =
        Hkdf::<Sha256>::new(None, key.bytes.as_slice()).expand(purpose.label(), &mut *bytes);
    assert!(expanded.is_ok(), "HKDF-SHA256 gives up to 8160 bytes");
    DerivedKey { id: key.id.clone(), bytes }
}

/// Short names are letters and digits; a word of the file's own is none.
fn is_id(id: &str) -> bool {
    id.len() <= 64 && id != "retired" && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Random bytes from the operating system.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    OsRng.try_fill_bytes(bytes).map_err(KeyError::Random)
}
