//! What is left of a master key that was destroyed: nothing that opens a secret.
//!
//! Both halves come from the key by one-way functions: the key that marks containers, without which
//! nothing that carries an old marker could ever be deleted, and the public half of its seal key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::{DerivedKey, MasterKey, Purpose, derive, is_id};

#[derive(Clone)]
pub(super) struct Retired {
    pub(super) id: String,
    marker: Zeroizing<[u8; 32]>,
    /// The public half.
    pub(super) seal: [u8; 32],
}

impl Retired {
    pub(super) fn of(key: &MasterKey) -> Self {
        let seed = derive(key, Purpose::SealSigning);
        Self {
            id: key.id.clone(),
            marker: derive(key, Purpose::GuestMarker).bytes,
            seal: SigningKey::from_bytes(seed.bytes()).verifying_key().to_bytes(),
        }
    }

    pub(super) fn marker_key(&self) -> DerivedKey {
        DerivedKey { id: self.id.clone(), bytes: self.marker.clone() }
    }

    /// Reads what stands behind the word `retired`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let id = words.next().filter(|id| is_id(id))?.to_owned();
        let bytes = |word: Option<&str>, name: &str| {
            let decoded = Zeroizing::new(STANDARD.decode(word?.strip_prefix(name)?).ok()?);
            <[u8; 32]>::try_from(decoded.as_slice()).ok()
        };
        let marker = Zeroizing::new(bytes(words.next(), "marker=")?);
        let seal = bytes(words.next(), "seal=")?;
        words.next().is_none().then_some(Self { id, marker, seal })
    }

    pub(super) fn to_line(&self) -> String {
        format!(
            "retired {} marker={} seal={}\n",
            self.id,
            STANDARD.encode(self.marker.as_slice()),
            STANDARD.encode(self.seal)
        )
    }
}
