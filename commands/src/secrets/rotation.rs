//! The master key replaced while everything goes on: a new generation seals, what is under older ones is
//! sealed anew, and then nothing can be sealed under those any more.
//!
//! 1. The new key goes into the key file, in front.
//! 2. One append says that the rotation began, stores the new key's sentinel, and, where several
//!    servers share the database, the new key under the old one: each server takes it up from there.
//! 3. Secrets are sealed anew, a few in each append.
//! 4. One append says that it is done, and takes away the old sentinels: a secret is only ever stored
//!    under a key that has one, the database sees to that.
//!
//! Each step finds out by itself whether it is done already, so whoever asks for a rotation after a
//! crash goes on with the one that was begun.

use std::collections::BTreeSet;
use std::time::Duration;

use proximity_domain::keys::{Command, Keys, STREAM};
use proximity_eventstore::{AppendError, Guard, SideWrite, Value, tables};
use serde::Serialize;

use super::{Secrets, bound_to, encrypt, unusable};
use crate::actor::Actor;
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::keys::MasterKeys;
use crate::rows::{text, unreadable};

/// How often the last append is tried while others still seal under the old key.
const ROUNDS: u32 = 20;

/// What a rotation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Rotated {
    /// The generation that seals now.
    pub generation: String,
    /// Those that it replaced.
    pub replaced: Vec<String>,
    /// Secrets that were sealed anew in this call.
    pub resealed: u64,
    /// Secrets that are under a replaced generation now, as the database counts them.
    pub left: u64,
    /// A rotation that was begun earlier was finished.
    pub resumed: bool,
}

/// One generation of the master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generation {
    pub generation: String,
    /// `sealing`, `leaving` (secrets are still under it), `replaced`, `destroyed`.
    pub state: &'static str,
    /// Whether this machine's key file has it.
    pub held: bool,
    /// Secrets under it, as the database counts them.
    pub secrets: u64,
    /// When the key was made, as the key file says.
    pub since: Option<String>,
    /// When it began to seal, was replaced, was destroyed; microseconds since 1970.
    pub sealing_since: Option<i64>,
    pub replaced_at: Option<i64>,
    pub destroyed_at: Option<i64>,
}

impl Secrets {
    /// Replaces the master key, or finishes the replacement that was begun.
    ///
    /// `grace` is how long other servers are given to take the new key up before old ones may no
    /// longer seal.
    pub async fn rotate(&self, actor: &Actor, grace: Duration) -> Result<Rotated, Error> {
        self.take_up().await?;
        let resumed = self.is_rotating().await?;
        if resumed {
            // What the rotation ends with has to outlive this process.
            self.must_be_in_file(self.keys().current_id()).await?;
        } else {
            self.ring.must_be_ours().map_err(unusable)?;
            let new = MasterKeys::generate().map_err(unusable)?;
            let lead = move |held: MasterKeys| Ok(Some(held.led_by(&new)));
            self.ring.update(lead).await.map_err(unusable)?;
        }
        self.register_as(actor).await?;
        let sentinels = self.sentinel_ids().await?;
        if self.ring.is_shared() && sentinels.len() > 1 {
            tokio::time::sleep(grace).await;
        }
        let mut resealed = 0;
        for _ in 0..ROUNDS {
            resealed += self.reseal_all(actor).await?;
            if let Some((generation, replaced)) = self.finish(actor, resealed).await? {
                let mut left = 0;
                for old in &replaced {
                    left += self.count_under(old).await?;
                }
                return Ok(Rotated { generation, replaced, resealed, left, resumed });
            }
        }
        Err(Error::conflict(
            "store.contended",
            "other servers seal under the old key again and again: see that they run and reach the \
             database, then rotate again",
        ))
    }

    /// Has every holder forget a replaced generation: what only it opens is gone for good. Where it cannot
    /// be taken out of this machine's key file, nothing is done.
    pub async fn destroy(&self, actor: &Actor, generation: &str) -> Result<(), Error> {
        self.take_up().await?;
        self.ring.must_not_stay(generation).await.map_err(unusable)?;
        if self.count_under(generation).await? > 0 {
            let detail =
                format!("secrets are still under key generation {generation}: rotate first");
            return Err(Error::conflict("keys.in_use", detail));
        }
        crate::retry::retrying!(async {
            let mut unit = Unit::new(&self.store, actor.metadata("keys.destroy"));
            let command = Command::Destroy { generation: generation.to_owned() };
            let applied = unit.apply::<Keys>(STREAM, command).await;
            applied.map_err(|refused| {
                refused.or_else(|error| Error::conflict("keys.in_use", error.to_string()))
            })?;
            if !unit.is_empty() {
                unit.commit().await?;
            }
            Ok::<_, Tried>(())
        })?;
        self.forget_keys(BTreeSet::from([generation.to_owned()])).await?;
        // Also where the file was right before: a change that was cut off may have left it elsewhere.
        self.ring.clear().await.map_err(unusable)
    }

    /// All generations that are held, known or in use, the sealing one first.
    pub async fn generations(&self) -> Result<Vec<Generation>, Error> {
        let keys = self.keys();
        let (state, _) = load::<Keys>(&self.store, STREAM).await?;
        let sentinels = self.sentinel_ids().await?;
        let sealing = match &state.current {
            Some(id) => Some(id.clone()),
            None => sentinels.first().cloned(),
        };
        let mut ids: Vec<String> = sealing.iter().cloned().collect();
        let known = keys.ids().into_iter().chain(sentinels.iter().cloned());
        let past = state.leaving.iter().chain(&state.replaced).chain(&state.destroyed).cloned();
        for id in known.chain(past).chain(keys.retired_ids()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let history = self.history().await?;
        let mut generations = Vec::new();
        for id in ids {
            let at = |kind: &str| {
                history.iter().rev().find(|(k, of, _)| k == kind && *of == id).map(|(.., at)| *at)
            };
            generations.push(Generation {
                state: if state.destroyed.contains(&id) {
                    "destroyed"
                } else if sealing.as_ref() == Some(&id) {
                    "sealing"
                } else if sentinels.contains(&id) {
                    "leaving"
                } else if state.replaced.contains(&id) {
                    "replaced"
                } else {
                    "unused"
                },
                held: keys.by_id(&id).is_some(),
                secrets: self.count_under(&id).await?,
                since: keys.since(&id),
                sealing_since: at("keys.rotation_began"),
                replaced_at: at("keys.rotated"),
                destroyed_at: at("keys.destroyed"),
                generation: id,
            });
        }
        Ok(generations)
    }

    /// Registers the first key of the file, which a person or a rotation put there.
    pub(super) async fn register(&self) -> Result<(), Error> {
        self.register_as(&Actor::system("keys")).await
    }

    async fn register_as(&self, actor: &Actor) -> Result<(), Error> {
        crate::retry::retrying!(async {
            let keys = self.keys();
            let generation = keys.current_id().to_owned();
            let sentinels = self.sentinel_ids().await?;
            if sentinels.contains(&generation) {
                return Ok::<_, Tried>(());
            }
            let mut unit = Unit::new(&self.store, actor.metadata("keys.rotate"));
            let command =
                Command::BeginRotation { generation: generation.clone(), replaced: sentinels };
            let applied = unit.apply::<Keys>(STREAM, command).await;
            applied.map_err(|refused| {
                refused.or_else(|error| Error::conflict("keys.in_use", error.to_string()))
            })?;
            unit.write(self.sentinel(&keys, &generation)?);
            if self.ring.is_shared()
                && let Some(write) = self.hand_over(&keys)?
            {
                unit.write(write);
            }
            match unit.commit().await {
                // Two were at it with the same key file.
                Err(AppendError::SideConflict { .. }) => Ok(()),
                other => Ok(other.map(drop)?),
            }
        })
    }

    /// The current key under the one before it.
    fn hand_over(&self, keys: &MasterKeys) -> Result<Option<SideWrite>, Error> {
        let ids = keys.ids();
        let [generation, under, ..] = ids.as_slice() else { return Ok(None) };
        let bound = bound_to("key_transit", generation, "wrapped", 1, under);
        let wrapped =
            encrypt(self.master(keys, under)?, &bound, self.master(keys, generation)?.as_slice())?;
        let row = vec![
            ("generation", text(generation)),
            ("under", text(under)),
            ("since", crate::rows::optional(keys.since(generation))),
            ("wrapped", Value::Bytes(wrapped)),
        ];
        Ok(Some(SideWrite::Upsert { table: &tables::KEY_TRANSIT, row }))
    }

    /// Whether a rotation was begun and not finished, the file's part of it included.
    async fn is_rotating(&self) -> Result<bool, Error> {
        let sentinels = self.sentinel_ids().await?;
        Ok(sentinels.len() > 1 || !sentinels.iter().any(|id| id == self.keys().current_id()))
    }

    pub(super) async fn sentinel_ids(&self) -> Result<Vec<String>, Error> {
        let rows = self.sentinels().await?;
        rows.iter().map(|row| Ok(row.text("key_id")?.to_owned())).collect()
    }

    /// The last append; `None` when something is under an old key again.
    async fn finish(
        &self,
        actor: &Actor,
        secrets: u64,
    ) -> Result<Option<(String, Vec<String>)>, Error> {
        crate::retry::retrying!(async {
            let generation = self.keys().current_id().to_owned();
            let sentinels = self.sentinel_ids().await?;
            let replaced: Vec<String> =
                sentinels.into_iter().filter(|id| *id != generation).collect();
            if replaced.is_empty() {
                // Another one has finished it.
                let (state, _) = load::<Keys>(&self.store, STREAM).await?;
                return Ok::<_, Tried>(Some((generation, state.replaced.into_iter().collect())));
            }
            for old in &replaced {
                if self.count_under(old).await? > 0 {
                    return Ok(None);
                }
            }
            let mut unit = Unit::new(&self.store, actor.metadata("keys.rotate"));
            let command = Command::FinishRotation {
                generation: generation.clone(),
                replaced: replaced.clone(),
                secrets,
            };
            let applied = unit.apply::<Keys>(STREAM, command).await;
            applied.map_err(|refused| {
                refused.or_else(|error| Error::conflict("keys.in_use", error.to_string()))
            })?;
            for old in &replaced {
                unit.write(SideWrite::Delete {
                    table: &tables::KEY_SENTINEL,
                    filter: vec![("key_id", text(old))],
                    guard: Guard::None,
                });
            }
            unit.write(SideWrite::Delete {
                table: &tables::KEY_TRANSIT,
                filter: vec![("generation", text(&generation))],
                guard: Guard::None,
            });
            match unit.commit().await {
                Ok(_) => Ok(Some((generation, replaced))),
                // Someone sealed under the old key between the count and the append.
                Err(AppendError::Invalid { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    async fn count_under(&self, generation: &str) -> Result<u64, Error> {
        let filter = vec![("key_id", text(generation))];
        self.store.count(&tables::SECRETS, filter).await.map_err(unreadable)
    }

    /// Kind, generation and moment of each event of the keys.
    async fn history(&self) -> Result<Vec<(String, String, i64)>, Error> {
        use proximity_domain::keys::Event;
        let events = self.store.load_stream("keys", STREAM).await.map_err(unreadable)?;
        let mut history = Vec::new();
        for recorded in events {
            let event = serde_json::from_str(&recorded.payload)
                .map_err(|error| Error::internal("a stored event cannot be read", error))?;
            let of = match event {
                Event::RotationBegan { generation, .. } | Event::Destroyed { generation } => {
                    vec![generation]
                }
                Event::Rotated { replaced, .. } => replaced,
            };
            let entry = |of| (recorded.event_type.clone(), of, recorded.recorded_at);
            history.extend(of.into_iter().map(entry));
        }
        Ok(history)
    }
}
