//! A log that was restored from a backup: the program only looks until an administrator has confirmed it.
//!
//! What exists on Proxmox may have gone on since the backup. So no operation is carried out, no
//! leftover removed and no schedule fired before someone has seen what differs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proximity_domain::log::{Command, Log, Restored, STREAM};
use proximity_eventstore::{Position, Store};

use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::policy::Admin;

/// Asked before anything is done that nobody asked for just now; cheap once the answer is yes.
#[derive(Clone)]
pub struct Restoration {
    store: Store,
    /// A log is restored into an empty database only, so within one life a yes stays a yes.
    acts: Arc<AtomicBool>,
}

impl Restoration {
    pub fn new(store: Store) -> Self {
        Self { store, acts: Arc::default() }
    }

    /// The restoration that waits to be confirmed.
    pub async fn observing(&self) -> Result<Option<Restored>, Error> {
        let (log, _) = load::<Log>(&self.store, STREAM).await?;
        Ok(log.observing().cloned())
    }

    /// Whether the program may act by itself. While that cannot be told, it may not.
    pub async fn may_act(&self) -> bool {
        if self.acts.load(Ordering::Acquire) {
            return true;
        }
        match self.observing().await {
            Ok(observing) => {
                if observing.is_none() {
                    self.acts.store(true, Ordering::Release);
                }
                observing.is_none()
            }
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether the log was restored");
                false
            }
        }
    }

    /// Lets the program act again; returns where the log stands.
    pub async fn confirm(&self, admin: &Admin) -> Result<Position, Error> {
        crate::retry::retrying!(async {
            let mut unit = Unit::new(&self.store, admin.actor().metadata("restore.confirm"));
            let applied = unit.apply::<Log>(STREAM, Command::ConfirmRestore).await;
            applied.map_err(|refused| {
                refused.or_else(|error| {
                    Error::conflict("restore.nothing_to_confirm", error.to_string())
                })
            })?;
            Ok::<_, Tried>(unit.commit().await?.position)
        })
    }
}
