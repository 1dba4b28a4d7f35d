//! The part of a rotation that every server does by itself: it takes new keys up and forgets destroyed
//! ones, wherever that was decided.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proximity_domain::keys::{Keys, STREAM};
use proximity_eventstore::{Store, tables};
use tokio_util::sync::CancellationToken;

use super::{Secrets, bound_to, decrypt, does_not_open, missing, sentinels_of, unusable};
use crate::dispatch::load;
use crate::error::Error;
use crate::keys::{KeyBytes, KeyError, MasterKeys};
use crate::rows::{Columns, text, unreadable};

/// How often a server looks whether the keys were changed elsewhere.
const LOOK: Duration = Duration::from_secs(1);

impl Secrets {
    /// Follows what is done to the keys elsewhere, until it is stopped.
    pub async fn watch(&self, stopping: CancellationToken) {
        let (mut seen, mut told) = (None, String::new());
        while !stopping.is_cancelled() {
            let head = *self.store.watch_head().borrow();
            if seen != Some(head) {
                match self.followed().await {
                    Ok(_) => (seen, told) = (Some(head), String::new()),
                    Err(error) => {
                        let error = crate::error::chain(&error);
                        // Once, not with each look: it may last until a person has mended it.
                        if error != told {
                            tracing::error!(error, "a change of the master keys was not taken up");
                            told = error;
                        }
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The keys after all that the log says of them; an error where the one that seals now is not held.
    pub async fn followed(&self) -> Result<Arc<MasterKeys>, Error> {
        self.take_up().await?;
        // First: also a server that missed a rotation has to forget what was destroyed.
        self.forget_destroyed().await?;
        let (state, _) = load::<Keys>(&self.store, STREAM).await?;
        match state.current {
            Some(id) if self.keys().by_id(&id).is_none() => {
                Err(unusable(KeyError::Unknown { id, place: self.ring.place() }))
            }
            _ => Ok(self.keys()),
        }
    }

    /// The generation that seals now, when it is not held, also after another look for it.
    pub async fn missing(&self) -> Result<Option<String>, Error> {
        let (state, _) = load::<Keys>(&self.store, STREAM).await?;
        let Some(id) = state.current else { return Ok(None) };
        match self.hold(&id).await {
            Err(Error::Unavailable { code: "keys.missing", .. }) => Ok(Some(id)),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(id).filter(|id| self.keys().by_id(id).is_none())),
        }
    }

    /// Takes up keys that others have begun to seal with: from the key file, or from the database.
    pub(super) async fn take_up(&self) -> Result<(), Error> {
        for row in self.sentinels().await? {
            let id = row.text("key_id")?.to_owned();
            if self.keys().by_id(&id).is_some() {
                continue;
            }
            let handed = self.handed_over(&id).await?;
            let wanted = id.clone();
            // Where the file has it already, reading it is all that was missing.
            let lead = move |held: MasterKeys| match (held.by_id(&wanted), &handed) {
                (None, Some(new)) => Ok(Some(held.led_by(new))),
                (Some(_), _) | (None, None) => Ok(None),
            };
            if !self.ring.follow(lead).await.map_err(unusable)? {
                // It is in the file of whoever began to seal with it, or it would not have come here.
                tracing::error!(
                    generation = id,
                    file = self.ring.place(),
                    "a new master key is in this process only, since the key file cannot be written here: \
                     add its line to it, or to what is handed over, from another server's file, before \
                     the next start"
                );
            }
            if self.keys().by_id(&id).is_some() {
                self.check_sentinel(&self.keys(), &id, row.bytes("ciphertext")?)?;
                tracing::info!(generation = id, "a new master key was taken up");
            }
        }
        // The log says which one seals; a file may have them in another order.
        let (state, _) = load::<Keys>(&self.store, STREAM).await?;
        let keys = self.keys();
        if let Some(current) = to_lead(&state, &keys) {
            let wanted = current.clone();
            let lead = move |held: MasterKeys| {
                Ok((held.current_id() != wanted).then(|| held.with_current(&wanted)))
            };
            if !self.ring.follow(lead).await.map_err(unusable)? {
                tracing::warn!(
                    file = self.ring.place(),
                    generation = current,
                    "the lines of the master key file are not in the order that the log says: put the \
                     line of this generation first in it, or in what is handed over"
                );
            }
        }
        Ok(())
    }

    /// A key that another server handed over, if we hold the one that it is under.
    async fn handed_over(&self, id: &str) -> Result<Option<MasterKeys>, Error> {
        let filter = vec![("generation", text(id))];
        let rows = self.store.rows(&tables::KEY_TRANSIT, filter, 1).await.map_err(unreadable)?;
        let Some(row) = rows.into_iter().next().map(Columns) else { return Ok(None) };
        let (keys, under) = (self.keys(), row.text("under")?);
        let Some(old) = keys.by_id(under) else { return Ok(None) };
        let bound = bound_to("key_transit", id, "wrapped", 1, under);
        let opened = decrypt(old, &bound, row.bytes("wrapped")?)?;
        let bytes = <[u8; 64]>::try_from(opened.as_slice()).map_err(|_| does_not_open())?;
        let since = row.optional_text("since")?.map(str::to_owned);
        Ok(Some(MasterKeys::alone(id, KeyBytes::new(bytes), since)))
    }

    /// Takes what was destroyed out of this server's key file and memory.
    pub(super) async fn forget_destroyed(&self) -> Result<(), Error> {
        let (state, _) = load::<Keys>(&self.store, STREAM).await?;
        if state.destroyed.is_empty() {
            return Ok(());
        }
        let mut ids = self.keys().ids();
        // The file may have been replaced by an older copy. One that cannot be read now is looked at again.
        match self.ring.in_file().await {
            Ok(file) => ids.extend(file.iter().flat_map(MasterKeys::ids)),
            Err(error) => tracing::debug!(%error, "the key file was not looked at"),
        }
        ids.retain(|id| state.destroyed.contains(id));
        if ids.is_empty() { Ok(()) } else { self.forget_keys(ids.into_iter().collect()).await }
    }

    /// Takes these keys out of this server's key file and memory.
    pub(super) async fn forget_keys(&self, gone: BTreeSet<String>) -> Result<(), Error> {
        let before = self.keys().ids();
        let asked = gone.clone();
        let forget = move |held: MasterKeys| {
            let is_held = held.ids().iter().any(|id| asked.contains(id));
            Ok(is_held.then(|| held.without(&asked)))
        };
        let written = self.ring.follow(forget).await.map_err(unusable)?;
        // Once, not with each look.
        if written || self.keys().ids() == before {
            return Ok(());
        }
        let file = self.ring.in_file().await.map_err(unusable)?;
        let left = file.iter().flat_map(MasterKeys::ids).filter(|id| gone.contains(id));
        let left: Vec<String> = left.collect();
        if !left.is_empty() {
            tracing::error!(
                file = self.ring.place(),
                generations = left.join(", "),
                "destroyed master keys are still in the key file, which cannot be written here: run `keys \
                 destroy` with a copy of it, and put that copy in its place"
            );
        }
        Ok(())
    }

    /// Those of the keys that the log says were destroyed; one that is found in a file was left there.
    pub async fn destroyed_of(store: &Store, keys: &MasterKeys) -> Result<Vec<String>, Error> {
        let (state, _) = load::<Keys>(store, STREAM).await?;
        Ok(keys.ids().into_iter().filter(|id| state.destroyed.contains(id)).collect())
    }

    /// The keys of a file as the log has them, for whoever signs and changes no file: in its order, and
    /// without those that were destroyed. An error where the one that seals is not held.
    pub async fn as_logged(store: &Store, file: MasterKeys) -> Result<MasterKeys, Error> {
        let (kept, sealing) = logged(store, &file).await?;
        match sealing {
            Some(id) if kept.by_id(&id).is_none() => Err(missing(&id)),
            Some(_) | None => Ok(kept),
        }
    }

    /// The same for whoever only verifies: in a log from before its destruction, the key that seals may be
    /// retired in the file. What is left of it verifies, and signs nothing.
    pub async fn as_logged_to_verify(store: &Store, file: MasterKeys) -> Result<MasterKeys, Error> {
        let (kept, sealing) = logged(store, &file).await?;
        match sealing {
            Some(id) if kept.by_id(&id).is_none() && !kept.retired_ids().contains(&id) => {
                Err(missing(&id))
            }
            Some(_) | None => Ok(kept),
        }
    }

    /// An error where a key is in this process only.
    pub(super) async fn must_be_in_file(&self, id: &str) -> Result<(), Error> {
        match self.ring.in_file().await.map_err(unusable)? {
            Some(file) if file.by_id(id).is_none() => {
                Err(unusable(KeyError::Unknown { id: id.to_owned(), place: self.ring.place() }))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The keys of a file in the log's order and without those that it says were destroyed, and the one that seals
/// in it. One in front that the log does not know yet stays there: it is newer than the log, and the next server
/// that starts begins to seal with it.
async fn logged(store: &Store, file: &MasterKeys) -> Result<(MasterKeys, Option<String>), Error> {
    let (state, _) = load::<Keys>(store, STREAM).await?;
    let kept = file.without(&state.destroyed);
    let kept = match to_lead(&state, &kept) {
        Some(current) => kept.with_current(&current),
        None => kept,
    };
    let sealing = match state.current {
        Some(current) => Some(current),
        // Before the first rotation only the sentinel names it; a log that no server had yet has none.
        None => match sentinels_of(store).await?.first() {
            Some(row) => Some(row.text("key_id")?.to_owned()),
            None => None,
        },
    };
    Ok((kept, sealing))
}

/// The key that seals as the log says, where keys begin with another one whose time is over: a file may
/// have been put together by hand.
fn to_lead(state: &Keys, keys: &MasterKeys) -> Option<String> {
    let past = [&state.leaving, &state.replaced, &state.destroyed];
    let is_past = past.iter().any(|ids| ids.contains(keys.current_id()));
    state.current.clone().filter(|current| is_past && keys.by_id(current).is_some())
}
