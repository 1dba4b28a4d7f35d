//! Which volumes the guests of a host have, by their configurations: each is read once for the names of all
//! volumes, and of many guests some at each look, in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proximity_domain::{HostId, Vmid};

use super::look::Look;
use crate::ports::{Guest, HypervisorError};

/// Guests whose configurations are read in one look; each costs three calls, and one for each snapshot.
const READ: usize = 40;

/// What was read of each guest last.
#[derive(Default)]
pub(super) struct Users(BTreeMap<(HostId, Vmid), Reading>);

/// Of a guest that could not be read, what it said before.
struct Reading {
    tried: Instant,
    /// Names that were looked for.
    sought: BTreeSet<String>,
    /// Those of them that stand in it.
    found: BTreeSet<String>,
}

impl Users {
    /// Looks for the names in those guests that were looked at longest ago.
    pub(super) async fn look_for(&mut self, names: &BTreeSet<String>, look: &Look<'_>) {
        // A guest that is gone has nothing, and nothing is kept that nobody asks for.
        self.0.retain(|(host, vmid), _| {
            *host != look.host || (!names.is_empty() && look.guests.contains_key(vmid))
        });
        if names.is_empty() {
            return;
        }
        let tried = |guest: &&Guest| self.0.get(&(look.host, guest.vmid)).map(|last| last.tried);
        let mut guests: Vec<&Guest> = look.guests.values().collect();
        guests.sort_by_key(tried);
        for guest in guests.into_iter().take(READ) {
            let said = look.hypervisor.mentions(guest, names).await;
            self.note(look, guest, names, said);
        }
    }

    fn note(
        &mut self,
        look: &Look<'_>,
        guest: &Guest,
        names: &BTreeSet<String>,
        said: Result<Option<BTreeSet<String>>, HypervisorError>,
    ) {
        let tried = Instant::now();
        let reading = self.0.entry((look.host, guest.vmid)).or_insert_with(|| Reading {
            tried,
            sought: BTreeSet::new(),
            found: BTreeSet::new(),
        });
        // Also of one that cannot be read: the others have their turn.
        reading.tried = tried;
        match said {
            Ok(Some(found)) => (reading.sought, reading.found) = (names.clone(), found),
            Ok(None) => tracing::info!(vmid = %guest.vmid, "a guest is not where it was listed"),
            Err(error) => {
                tracing::info!(vmid = %guest.vmid, %error, "what a guest has cannot be told");
            }
        }
    }

    /// Whether any guest has the volume of this name; `None` while a guest was not read for it yet.
    pub(super) fn have(&self, name: &str, look: &Look<'_>) -> Option<bool> {
        let mut are_all_read = true;
        for vmid in look.guests.keys() {
            match self.0.get(&(look.host, *vmid)) {
                Some(reading) if reading.found.contains(name) => return Some(true),
                Some(reading) if reading.sought.contains(name) => {}
                Some(_) | None => are_all_read = false,
            }
        }
        are_all_read.then_some(false)
    }
}
