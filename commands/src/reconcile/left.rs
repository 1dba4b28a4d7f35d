//! Volumes that operations have left which ended without them: nothing removes them any more, so they are
//! named until they are gone, or a guest has them. Which operations may have, the log says, and what stood
//! there before.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::host::{Discrepancy, DiscrepancyKind, LeftVolume};
use proximity_domain::plan::GuestRef;
use proximity_domain::{ApplicationId, NodeName, OperationId, Vmid};
use proximity_eventstore::{Position, Search, Store};

use super::look::{EMPTY, Look};
use super::users::Users;
use crate::error::Error;
use crate::ports::Volume;
use crate::saga::traces::{Traces, node_of, place_of};
use crate::saga::{file_name, is_disk_of};

/// Events read at a time.
const PAGE: usize = 500;
/// Seconds before its beginning and after its end in which a volume may still be an operation's: clocks
/// differ.
const SLACK: i64 = 600;
/// Numbers that are asked about in one look.
const ASKED: usize = 20;
/// After these an operation works no more under the number that it had.
const ENDS: [&str; 3] = ["abandoned", "undone", "plan_changed"];

/// A storage of a node.
type Place = (NodeName, String);

/// All operations that may have left volumes. None is ever forgotten, since an empty list may be that of a
/// directory that is not mounted: the storages of all of them are listed once a look, and more is asked
/// only where there is something.
#[derive(Default)]
pub(super) struct Left {
    /// By operation, each number that it has worked under.
    operations: BTreeMap<OperationId, Vec<Leaver>>,
    users: Users,
    /// How far the log was read for each of the ends.
    cursors: [Position; ENDS.len()],
}

/// An operation that may have left volumes under a number.
struct Leaver {
    operation: OperationId,
    application: ApplicationId,
    guest: GuestRef,
    /// Where to look, and what was there before: nothing is known of what was on other nodes.
    places: BTreeMap<Place, BTreeSet<String>>,
    /// Disks of the container that it was to overwrite, which are older.
    replaced: BTreeSet<String>,
    /// Seconds since 1970: when it looked what was there.
    began: i64,
    /// Seconds since 1970.
    ended: i64,
}

impl Leaver {
    /// `None` when it has left nothing for certain.
    fn of(operation: OperationId, traces: &Traces) -> Option<Self> {
        let guest = place_of(&traces.plan)?.clone();
        let (stood, ended) = (traces.stood.as_ref()?, traces.may_have_left()?);
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
        let replaced = site.map(|site| site.replaced.clone()).unwrap_or_default();
        let (application, began) = (traces.application.clone(), traces.looked_at);
        Some(Self { operation, application, guest, places, replaced, began, ended })
    }

    /// What of a storage's disks it has left.
    fn left<'v>(&self, place: &Place, disks: &'v [Volume]) -> impl Iterator<Item = &'v Volume> {
        let vmid = self.guest.vmid;
        let (first, last) = (self.began.saturating_sub(SLACK), self.ended.saturating_add(SLACK));
        let before = self.places.get(place);
        disks.iter().filter(move |disk| {
            is_disk_of(disk, vmid)
                && before.is_none_or(|before| !before.contains(&disk.id))
                && disk.created.is_none_or(|created| {
                    created <= last && (created >= first || self.replaced.contains(&disk.id))
                })
        })
    }
}

impl Left {
    /// Follows the log to its end.
    pub(super) async fn read(&mut self, store: &Store) -> Result<(), Error> {
        let Self { operations, cursors, .. } = self;
        for (end, cursor) in ENDS.into_iter().zip(cursors) {
            let mut is_complete = false;
            while !is_complete {
                let event_type = Some(format!("operation.{end}"));
                let search = Search { after: *cursor, event_type, ..Search::default() };
                let found = store.search(&search, PAGE).await;
                let found =
                    found.map_err(|error| Error::internal("the log cannot be searched", error))?;
                for event in &found.events {
                    let Ok(id) = event.aggregate_id.parse::<OperationId>() else { continue };
                    let traces = Traces::all(store, &event.aggregate_id).await?;
                    let left = traces.iter().filter_map(|traces| Leaver::of(id, traces));
                    let left: Vec<Leaver> = left.collect();
                    if !left.is_empty() {
                        operations.insert(id, left);
                    }
                }
                (*cursor, is_complete) = (found.next, found.complete);
            }
        }
        Ok(())
    }

    /// What is left on a host. What cannot be told leaves what was `known` of it as it was.
    pub(super) async fn find(
        &mut self,
        look: &Look<'_>,
        known: &[Discrepancy],
    ) -> Vec<Discrepancy> {
        // Whoever has a number has volumes of his own under it.
        let is_unlisted = |vmid: Vmid| !look.guests.contains_key(&vmid);
        let known: BTreeMap<&str, &Discrepancy> = known
            .iter()
            .filter(|one| is_unlisted(one.vmid))
            .filter_map(|one| Some((one.volume.as_ref()?.id.as_str(), one)))
            .collect();
        // A number that Proxmox calls free is, also on a host that has no guest at all.
        if look.inconclusive.is_some_and(|why| why != EMPTY) {
            return known.into_values().cloned().collect();
        }
        let Self { operations, users, .. } = self;
        let leavers = operations.values().flatten().filter(|leaver| {
            let GuestRef { host, cluster, vmid, .. } = &leaver.guest;
            *host == look.host && *cluster == look.cluster && is_unlisted(*vmid)
        });
        let leavers: Vec<&Leaver> = leavers.collect();
        let mut listed: BTreeMap<&Place, Option<Vec<Volume>>> = BTreeMap::new();
        for place in leavers.iter().flat_map(|leaver| leaver.places.keys()) {
            if !listed.contains_key(place) {
                listed.insert(place, disks(look, place).await);
            }
        }
        let left = left(&leavers, &listed);
        let names = left.keys().map(|id| file_name(id).to_owned()).collect();
        users.look_for(&names, look).await;
        let is_unread = |one: &&Discrepancy| {
            one.volume.as_ref().is_some_and(|LeftVolume { storage, id, .. }| {
                let place = (one.node.clone(), storage.clone());
                !left.contains_key(id.as_str()) && listed.get(&place).is_some_and(Option::is_none)
            })
        };
        let mut found: Vec<Discrepancy> =
            known.values().copied().filter(is_unread).cloned().collect();
        let mut asked = BTreeMap::new();
        for (id, (leaver, (node, storage))) in &left {
            let vmid = leaver.guest.vmid;
            let was_known = known.contains_key(id);
            let is_nobodys = match users.have(file_name(id), look) {
                Some(true) => false,
                // Its number was free when it was first named, and nobody is listed under it since.
                Some(false) if was_known && look.inconclusive.is_none() => true,
                Some(false) => is_free(look, vmid, &mut asked).await.unwrap_or(was_known),
                None => was_known,
            };
            if is_nobodys {
                found.push(Discrepancy {
                    vmid,
                    node: node.clone(),
                    kind: DiscrepancyKind::LeftOver,
                    application: leaver.application.clone(),
                    volume: Some(LeftVolume {
                        storage: storage.clone(),
                        id: (*id).to_owned(),
                        operation: leaver.operation,
                    }),
                });
            }
        }
        found
    }
}

/// By its id, each volume that is left, and where. What all nodes share is listed on each, and named once;
/// of several operations that worked under a number it is the last one's.
fn left<'l>(
    leavers: &[&'l Leaver],
    listed: &'l BTreeMap<&Place, Option<Vec<Volume>>>,
) -> BTreeMap<&'l str, (&'l Leaver, &'l Place)> {
    let mut left: BTreeMap<&str, (&Leaver, &Place)> = BTreeMap::new();
    for leaver in leavers.iter().copied() {
        for place in leaver.places.keys() {
            let Some(Some(disks)) = listed.get(place) else { continue };
            for volume in leaver.left(place, disks) {
                let last = left.entry(&volume.id).or_insert((leaver, place));
                if last.0.ended <= leaver.ended {
                    *last = (leaver, place);
                }
            }
        }
    }
    left
}

/// Whether nobody has the number, and no task works on it; `None` when that cannot be told, or others were
/// `asked` about.
async fn is_free(
    look: &Look<'_>,
    vmid: Vmid,
    asked: &mut BTreeMap<Vmid, Option<bool>>,
) -> Option<bool> {
    if let Some(answer) = asked.get(&vmid) {
        return *answer;
    }
    if asked.len() >= ASKED {
        return None;
    }
    let answer = match look.is_busy(vmid).await {
        Ok(true) => Ok(false),
        Ok(false) => look.hypervisor.vmid_is_free(vmid).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &answer {
        tracing::info!(%vmid, %error, "whether a number is free cannot be told");
    }
    asked.insert(vmid, answer.as_ref().ok().copied());
    answer.ok()
}

/// The disks of a storage whose numbers nobody has: Proxmox lists them as virtual machines'.
async fn disks(look: &Look<'_>, (node, storage): &Place) -> Option<Vec<Volume>> {
    match look.hypervisor.volumes(node, storage, "images").await {
        Ok(volumes) => Some(volumes),
        Err(error) => {
            tracing::info!(%node, storage, %error, "a storage was not looked at");
            None
        }
    }
}
