//! Volumes that an operation has left which a person gave up: nothing removes them any more, so they are
//! named until they are gone. Which operations that were, the log says, and what stood there before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proximity_domain::host::{Discrepancy, DiscrepancyKind, LeftVolume};
use proximity_domain::plan::GuestRef;
use proximity_domain::{ApplicationId, NodeName, OperationId, Vmid};
use proximity_eventstore::{Position, Search, Store};

use super::look::{EMPTY, Look};
use crate::error::Error;
use crate::ports::Volume;
use crate::saga::traces::{Traces, node_of, place_of};
use crate::saga::{is_disk_of, user_of};

/// Events read at a time.
const PAGE: usize = 500;
/// Seconds after its end in which a volume may still be an operation's: clocks differ.
const LATE: i64 = 600;
/// How long a guest that was seen to have a volume is taken to have it still: to ask costs a look at every
/// guest's configuration.
const BELIEVED: Duration = Duration::from_secs(3_600);

/// All operations that were given up and may have left volumes.
#[derive(Default)]
pub(super) struct Left {
    operations: BTreeMap<OperationId, GivenUp>,
    /// Volumes that no guest had when they were found.
    nobodys: BTreeSet<(OperationId, String)>,
    /// Volumes that a guest had, and when that was seen.
    somebodys: BTreeMap<(OperationId, String), Instant>,
    cursor: Position,
}

/// One of them.
struct GivenUp {
    application: ApplicationId,
    guest: GuestRef,
    /// Where to look, and what was there before: nothing is known of what was on other nodes.
    places: BTreeMap<(NodeName, String), BTreeSet<String>>,
    /// Seconds since 1970.
    ended: i64,
}

impl GivenUp {
    /// `None` when it has left nothing for certain.
    fn of(traces: &Traces) -> Option<Self> {
        let guest = place_of(&traces.plan)?.clone();
        let (stood, ended) = (traces.stood.as_ref()?, traces.abandoned_at?);
        let site = traces.site.as_ref();
        let first = site.map_or(&guest.node, |site| &site.node);
        let mut places = BTreeMap::new();
        for (storage, before) in stood {
            let mut before = before.clone();
            // Without a task of its own that container has its disks.
            if let Some(site) = site.filter(|_| traces.made.is_empty()) {
                before.extend(site.replaced.iter().cloned());
            }
            places.insert((first.clone(), storage.clone()), before);
            for node in traces.made.iter().filter_map(|upid| node_of(upid)) {
                places.entry((node, storage.clone())).or_default();
            }
        }
        Some(Self { application: traces.application.clone(), guest, places, ended })
    }

    /// What of a storage's disks it has left.
    fn left<'v>(
        &self,
        place: &(NodeName, String),
        disks: &'v [Volume],
    ) -> impl Iterator<Item = &'v Volume> {
        let (vmid, last) = (self.guest.vmid, self.ended.saturating_add(LATE));
        let before = self.places.get(place).cloned().unwrap_or_default();
        disks.iter().filter(move |disk| {
            is_disk_of(disk, vmid)
                && !before.contains(&disk.id)
                && disk.created.is_none_or(|created| created <= last)
        })
    }
}

impl Left {
    /// Follows the log to its end.
    pub(super) async fn read(&mut self, store: &Store) -> Result<(), Error> {
        let context = "the log cannot be searched";
        loop {
            let search = Search {
                after: self.cursor,
                event_type: Some("operation.abandoned".to_owned()),
                ..Search::default()
            };
            let found = store.search(&search, PAGE).await;
            let found = found.map_err(|error| Error::internal(context, error))?;
            for event in &found.events {
                let Ok(id) = event.aggregate_id.parse::<OperationId>() else { continue };
                let Some(traces) = Traces::read(store, &event.aggregate_id).await? else {
                    continue;
                };
                let given_up = GivenUp::of(&traces);
                self.operations.extend(given_up.map(|given_up| (id, given_up)));
            }
            self.cursor = found.next;
            if found.complete {
                return Ok(());
            }
        }
    }

    /// What is left on a host. A storage that cannot be read leaves what was `known` of it as it was.
    pub(super) async fn find(
        &mut self,
        look: &Look<'_>,
        known: &[Discrepancy],
    ) -> Vec<Discrepancy> {
        let mut found = Vec::new();
        let mut listed: BTreeMap<(NodeName, String), Option<Vec<Volume>>> = BTreeMap::new();
        let here = |given_up: &GivenUp| {
            given_up.guest.host == look.host && given_up.guest.cluster == look.cluster
        };
        let mut over = Vec::new();
        for (id, given_up) in self.operations.iter().filter(|(_, given_up)| here(given_up)) {
            if look.guests.contains_key(&given_up.guest.vmid) {
                // Whoever has the number has volumes of his own.
                continue;
            }
            let mut left = BTreeMap::new();
            // A number that Proxmox calls free is, also on a host that has no guest at all.
            let mut is_told = look.inconclusive.is_none_or(|why| why == EMPTY);
            for place in given_up.places.keys() {
                if !listed.contains_key(place) {
                    listed.insert(place.clone(), disks(look, place).await);
                }
                match listed.get(place) {
                    Some(Some(disks)) => {
                        let volumes = given_up.left(place, disks);
                        // What all nodes share is listed on each, and named once.
                        left.extend(volumes.map(|volume| (volume.id.clone(), place.clone())));
                    }
                    _ => is_told = false,
                }
            }
            is_told = is_told && is_free(look, given_up.guest.vmid).await;
            if is_told && left.is_empty() {
                over.push(*id);
            }
            if !is_told {
                let of = |one: &&Discrepancy| {
                    one.volume.as_ref().is_some_and(|volume| volume.operation == *id)
                };
                found.extend(known.iter().filter(of).cloned());
                continue;
            }
            for (volume, (node, storage)) in left {
                let key = (*id, volume);
                let seen = self.somebodys.get(&key);
                if seen.is_some_and(|seen| seen.elapsed() < BELIEVED) {
                    continue;
                }
                if !self.nobodys.contains(&key) {
                    match user_of(look.hypervisor, &key.1).await {
                        Ok(None) => {
                            self.nobodys.insert(key.clone());
                        }
                        Ok(Some(_)) => {
                            self.somebodys.insert(key, Instant::now());
                            continue;
                        }
                        Err(error) => {
                            tracing::info!(volume = key.1, %error, "whose it is cannot be told");
                            continue;
                        }
                    }
                }
                found.push(Discrepancy {
                    vmid: given_up.guest.vmid,
                    node,
                    kind: DiscrepancyKind::LeftOver,
                    application: given_up.application.clone(),
                    volume: Some(LeftVolume { storage, id: key.1, operation: *id }),
                });
            }
        }
        for id in over {
            // What comes there from now on is not its.
            self.operations.remove(&id);
        }
        found
    }
}

/// Whether nobody has the number, and no task works on it.
async fn is_free(look: &Look<'_>, vmid: Vmid) -> bool {
    let is_busy = look.is_busy(vmid).await.unwrap_or(true);
    !is_busy && look.hypervisor.vmid_is_free(vmid).await.unwrap_or(false)
}

/// The disks of a storage whose numbers nobody has: Proxmox lists them as virtual machines'.
async fn disks(look: &Look<'_>, (node, storage): &(NodeName, String)) -> Option<Vec<Volume>> {
    match look.hypervisor.volumes(node, storage, "images").await {
        Ok(volumes) => Some(volumes),
        Err(error) => {
            tracing::info!(%node, storage, %error, "a storage was not looked at");
            None
        }
    }
}
