//! Values that were picked and are not leased yet, so that no two picks of one process meet.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proximity_domain::LeaseKey;

/// All values in flight.
#[derive(Default)]
pub(super) struct InFlight {
    keys: Arc<Mutex<HashSet<LeaseKey>>>,
}

/// One value in flight; dropping it lets others pick it again, if the log then says it is free.
pub struct Flight {
    key: LeaseKey,
    keys: Arc<Mutex<HashSet<LeaseKey>>>,
}

impl InFlight {
    /// `None` when it is in flight already.
    pub(super) fn reserve(&self, key: LeaseKey) -> Option<Flight> {
        lock(&self.keys).insert(key.clone()).then(|| Flight { key, keys: Arc::clone(&self.keys) })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.keys).remove(&self.key);
    }
}

fn lock(keys: &Mutex<HashSet<LeaseKey>>) -> MutexGuard<'_, HashSet<LeaseKey>> {
    // A set is whole after every insert and remove, so a poisoned one can be used.
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}
