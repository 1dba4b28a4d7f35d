//! What the log is sealed with: a key made from the master key, and the place where heads go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use futures_util::FutureExt as _;
use proximity_commands::keys::{MasterKeys, Purpose};
use proximity_commands::secrets::Secrets;
use proximity_domain::keys::{Event, STREAM};
use proximity_eventstore::{Error, HeadsDir, Position, Seal, Sealing, Store, Trusted, reached};
use uuid::Uuid;

use super::installation::{RunnerId, is_settled, settle};
use super::{existing_keys, key_file};
use crate::config::Config;
use crate::http::problem::chain;

/// The keys that sign the chain, one for each master key; every server of an installation has them.
pub struct SigningKeys {
    /// Signs from now on.
    pub current: SigningKey,
    /// Public halves of those that only signed before.
    pub earlier: Vec<VerifyingKey>,
    /// And of those that were destroyed, each with the name of its generation.
    pub destroyed: Vec<(String, VerifyingKey)>,
}

impl SigningKeys {
    /// Made from the master keys, so that there is no other secret to keep.
    pub fn derive(keys: &MasterKeys) -> Self {
        let signing = |key: &[u8; 32]| SigningKey::from_bytes(key);
        let current = signing(keys.derive(Purpose::SealSigning).bytes());
        let all = keys.derive_all(Purpose::SealSigning);
        let held = all.iter().skip(1).map(|key| signing(key.bytes()).verifying_key());
        // A key that was destroyed signs nothing any more; what it signed still counts.
        let gone = keys.retired_ids().into_iter().zip(keys.retired_seal_keys());
        let gone = gone
            .filter_map(|(id, public)| Some((id, VerifyingKey::from_bytes(&public).ok()?)))
            .collect();
        Self { current, earlier: held.collect(), destroyed: gone }
    }

    /// All that signed before, destroyed ones included.
    fn before(&self) -> Vec<VerifyingKey> {
        self.earlier.iter().copied().chain(self.gone()).collect()
    }

    fn gone(&self) -> Vec<VerifyingKey> {
        self.destroyed.iter().map(|(_, key)| *key).collect()
    }

    /// All public halves, the current one first.
    pub fn public(&self) -> Vec<VerifyingKey> {
        std::iter::once(self.current.verifying_key()).chain(self.before()).collect()
    }

    /// Whose signatures count; those of destroyed keys only for what was signed before, as the log says.
    pub async fn trusted(&self, store: &Store) -> Result<Trusted, Error> {
        let held = std::iter::once(self.current.verifying_key()).chain(self.earlier.clone());
        let mut trusted = Trusted::new(held);
        if self.destroyed.is_empty() {
            return Ok(trusted);
        }
        let events = store.load_stream("keys", STREAM).await?;
        let ended = |generation: &str| -> Option<Position> {
            let is_it = |event: &Event| matches!(event, Event::Destroyed { generation: gone } if gone == generation);
            let found = events.iter().find(|event| {
                serde_json::from_str::<Event>(&event.payload).is_ok_and(|event| is_it(&event))
            });
            Some(found?.position)
        };
        for (generation, key) in &self.destroyed {
            trusted = trusted.and_destroyed(*key, ended(generation));
        }
        Ok(trusted)
    }
}

/// Keys that were named by hand, or are vouched for by one of them: those that were destroyed count only for
/// what was signed before, as far as the log tells which they are.
///
/// Whoever seals reads the log first, so the block that has the beginning of a generation is signed by its
/// key. One that was replaced before it signed anything stays unknown.
pub async fn ended_by_the_log(store: &Store, mut trusted: Trusted) -> Result<Trusted, Error> {
    let (mut began, mut ended) = (BTreeMap::<Position, String>::new(), Vec::new());
    for recorded in store.load_stream("keys", STREAM).await? {
        match serde_json::from_str(&recorded.payload) {
            Ok(Event::RotationBegan { generation, replaced }) => {
                if let (true, Some(first)) = (began.is_empty(), replaced.into_iter().next()) {
                    began.insert(1, first);
                }
                began.insert(recorded.position, generation);
            }
            Ok(Event::Destroyed { generation }) => ended.push((generation, recorded.position)),
            Ok(Event::Rotated { .. }) | Err(_) => {}
        }
    }
    if ended.is_empty() {
        return Ok(trusted);
    }
    let mut generations = BTreeMap::<String, String>::new();
    for position in began.keys() {
        let Some(seal) = covering(store, *position).await? else { continue };
        if let Some((_, generation)) = began.range(..=seal.last).next_back() {
            // The first time counts: what was signed with a key later may be somebody else's work.
            generations.entry(seal.key_id).or_insert_with(|| generation.clone());
        }
    }
    for (key_id, generation) in &generations {
        if let Some((_, at)) = ended.iter().find(|(gone, _)| gone == generation) {
            trusted = trusted.and_ended(key_id, *at);
        }
    }
    Ok(trusted)
}

/// The block that an event is in.
async fn covering(store: &Store, position: Position) -> Result<Option<Seal>, Error> {
    let Some(last) = store.last_seal().await? else { return Ok(None) };
    // The first block that ends at the position or behind it is in here.
    let (mut low, mut high) = (1, last.block);
    let mut found = None;
    while low <= high {
        let middle = low + (high - low) / 2;
        match store.seals(middle - 1, 1).await?.pop() {
            Some(seal) if seal.last < position => low = middle.max(seal.block) + 1,
            Some(seal) => {
                found = Some(seal);
                high = middle - 1;
            }
            None => high = middle - 1,
        }
    }
    Ok(found.filter(|seal| seal.first <= position))
}

/// Where the heads of the chain are published.
pub fn heads_dir(config: &Config) -> PathBuf {
    config.heads_dir.clone().unwrap_or_else(|| usual_heads_dir(config))
}

/// Where they are when no directory is named: a command of the shell may not know the server's.
fn usual_heads_dir(config: &Config) -> PathBuf {
    config.data.join("heads")
}

/// Switches sealing on; `server` tells this server's heads from those of others.
pub fn start(config: &Config, store: &Store, secrets: &Secrets, server: Uuid) -> Result<(), Error> {
    let dir = heads_dir(config);
    tracing::debug!(heads = %dir.display(), "the log is sealed");
    if let Err(error) = settle(&config.data) {
        tracing::warn!(%error, data = %config.data.display(), "it cannot be noted that a server runs here");
    }
    let keys = SigningKeys::derive(&secrets.keys());
    let secrets = secrets.clone();
    let renewed = move || {
        let secrets = secrets.clone();
        let follow = async move {
            let held = secrets.followed().await.map_err(|error| chain(&error))?;
            let keys = SigningKeys::derive(&held);
            Ok((keys.current.clone(), keys.before()))
        };
        follow.boxed()
    };
    store.seal_with(Sealing {
        key: keys.current.clone(),
        earlier: keys.before(),
        destroyed: keys.gone(),
        renewed: Some(Arc::new(renewed)),
        heads: Some(dir),
        elsewhere: Some(usual_heads_dir(config)),
        server: server.simple().to_string(),
        every: Sealing::EVERY,
    })
}

/// Closes a log in which the shell has noted what it did, sealed where that can do no harm: not in a copy
/// of the data directory, of which a backup is made, say. What is sealed there belongs to no chain but its
/// own, and the backup could not be held against the heads of the real one. Nor is a log sealed that
/// nobody has signed for yet, or that ends before its heads do.
pub async fn close_noted(config: &Config, store: Store) {
    let ready = async {
        let here = config.database_url.is_none() && is_settled(&config.data);
        let (Some(last), true) = (store.last_seal().await?, here) else { return Ok(None) };
        let reached = reached(&store, HeadsDir::new(heads_dir(config)), None).await?;
        let is_end =
            reached.here.is_some_and(|head| (head.block, head.position) == (last.block, last.last));
        if last.incarnation != store.incarnation() || !is_end {
            return Ok(None);
        }
        let Some(ring) = existing_keys(config, &store).await? else { return Ok(None) };
        let held = Secrets::as_logged(&store, (*ring.keys()).clone()).await?;
        let keys = SigningKeys::derive(&held);
        Secrets::check(store.clone(), ring).await?;
        anyhow::Ok(Some((keys, RunnerId::take(&config.data)?)))
    };
    let sealed = match ready.await {
        Ok(Some((keys, server))) => {
            seal_once(config, store, &keys, server.id).await.map(drop).map_err(Into::into)
        }
        Ok(None) => return store.close().await,
        Err(error) => {
            store.close().await;
            Err(error)
        }
    };
    if let Err(error) = sealed {
        tracing::debug!(%error, "a note is sealed by the next server that starts");
    }
}

/// Closes a log that the shell has written, sealed where no server does that: beside PostgreSQL one may
/// run, and the next one to start seals it otherwise.
pub async fn close_sealed(config: &Config, store: Store) {
    if config.database_url.is_some() {
        return store.close().await;
    }
    let ready = async {
        let keys = Secrets::as_logged(&store, key_file(config).read()?).await?;
        anyhow::Ok((SigningKeys::derive(&keys), RunnerId::take(&config.data)?))
    };
    let sealed = match ready.await {
        Ok((keys, server)) => {
            seal_once(config, store, &keys, server.id).await.map(drop).map_err(Into::into)
        }
        Err(error) => {
            store.close().await;
            Err(error)
        }
    };
    if let Err(error) = sealed {
        tracing::warn!(%error, "what was written is sealed by the next server that starts");
    }
}

/// Seals what is stored and publishes its head, while no server runs; answers why that could not be done.
pub async fn seal_once(
    config: &Config,
    store: Store,
    keys: &SigningKeys,
    server: Uuid,
) -> Result<Option<String>, Error> {
    store.seal_with(Sealing {
        key: keys.current.clone(),
        earlier: keys.before(),
        destroyed: keys.gone(),
        renewed: None,
        heads: Some(heads_dir(config)),
        elsewhere: None,
        server: server.simple().to_string(),
        every: Sealing::EVERY,
    })?;
    store.clone().close().await;
    Ok(store.seal_state().and_then(|state| state.trouble))
}
