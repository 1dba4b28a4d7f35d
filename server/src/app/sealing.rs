//! What the log is sealed with: a key made from the master key, and the place where heads go.

use std::path::PathBuf;

use ed25519_dalek::{SigningKey, VerifyingKey};
use proximity_commands::keys::{MasterKeys, Purpose};
use proximity_eventstore::{Error, HeadsDir, Sealing, Store, Trusted};
use uuid::Uuid;

use crate::config::Config;

/// The keys that sign the chain, one for each master key; every server of an installation has them.
pub struct SigningKeys {
    /// Signs from now on.
    pub current: SigningKey,
    /// Public halves of those that only signed before.
    pub earlier: Vec<VerifyingKey>,
}

impl SigningKeys {
    /// Made from the master keys, so that there is no other secret to keep.
    pub fn derive(keys: &MasterKeys) -> Self {
        let signing = |key: &[u8; 32]| SigningKey::from_bytes(key);
        let current = signing(keys.derive(Purpose::SealSigning).bytes());
        let all = keys.derive_all(Purpose::SealSigning);
        let held = all.iter().skip(1).map(|key| signing(key.bytes()).verifying_key());
        // A key that was destroyed signs nothing any more; what it signed still counts.
        let gone = keys.retired_seal_keys();
        let gone = gone.iter().filter_map(|public| VerifyingKey::from_bytes(public).ok());
        Self { current, earlier: held.chain(gone).collect() }
    }

    /// All public halves, the current one first.
    pub fn public(&self) -> Vec<VerifyingKey> {
        std::iter::once(self.current.verifying_key()).chain(self.earlier.iter().copied()).collect()
    }

    /// Whose signatures count.
    pub fn trusted(&self) -> Trusted {
        Trusted::new(self.public())
    }
}

/// Where the heads of the chain are published.
pub fn heads_dir(config: &Config) -> PathBuf {
    config.heads_dir.clone().unwrap_or_else(|| config.data.join("heads"))
}

/// Switches sealing on; `server` tells this server's heads from those of others.
pub fn start(
    config: &Config,
    store: &Store,
    keys: &SigningKeys,
    server: Uuid,
) -> Result<(), Error> {
    let dir = HeadsDir::new(heads_dir(config));
    tracing::debug!(heads = %dir.path().display(), "the log is sealed");
    store.seal_with(Sealing {
        key: keys.current.clone(),
        earlier: keys.earlier.clone(),
        heads: Some(dir.path().to_owned()),
        server: server.simple().to_string(),
        every: Sealing::EVERY,
    })
}
