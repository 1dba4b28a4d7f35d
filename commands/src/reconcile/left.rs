//! Volumes that operations have left which ended without them: nothing removes them any more, so they are
//! named until they are gone, or a guest has them. Which operations may have, the log says, and what stood
//! there before.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::host::{Discrepancy, DiscrepancyKind, LeftVolume};
use proximity_domain::operation::Volumes;
use proximity_domain::plan::GuestRef;
use proximity_domain::{ApplicationId, NodeName, OperationId, Vmid};
use proximity_eventstore::{Position, Search, Store};

use super::look::{EMPTY, Look};
use super::places::{Place, Places};
use super::snapshots::Snapshots;
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

/// All operations that may have left volumes. None is ever forgotten, since an empty list may be that of a
/// directory that is not mounted: the storages of all of them are listed once a look, and more is asked
/// only where there is something.
#[derive(Default)]
pub(super) struct Left {
    /// By operation, each number that it has worked under.
    operations: BTreeMap<OperationId, Vec<Leaver>>,
    snapshots: Snapshots,
    users: Users,
    /// How far the log was read for each of the ends.
    cursors: [Position; ENDS.len()],
}

/// An operation that may have left volumes under a number.
struct Leaver {
    operation: OperationId,
    application: ApplicationId,
    guest: GuestRef,
    /// Where it looked what was there.
    node: NodeName,
    /// What was there before.
    stood: Volumes,
    /// Other nodes on which it may have made any. What was on their own storages before is not known.
    elsewhere: BTreeSet<NodeName>,
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
        let (mut stood, ended) = (traces.stood.clone()?, traces.may_have_left()?);
        let site = traces.site.as_ref();
        let node = site.map_or(&guest.node, |site| &site.node).clone();
        let mut replaced = site.map(|site| site.replaced.clone()).unwrap_or_default();
        if !traces.may_have_made() {
            // That container has its disks.
            for before in stood.values_mut() {
                before.extend(replaced.iter().cloned());
            }
            replaced.clear();
        }
        let elsewhere = traces.made.iter().filter_map(|upid| node_of(upid));
        let elsewhere = elsewhere.filter(|other| *other != node).collect();
        let (application, began) = (traces.application.clone(), traces.looked_at);
        let left =
            Self { operation, application, guest, node, stood, elsewhere, replaced, began, ended };
        Some(left)
    }

    /// Where to look.
    fn places(&self) -> impl Iterator<Item = Place> {
        let nodes = std::iter::once(&self.node).chain(&self.elsewhere);
        nodes.flat_map(|node| self.stood.keys().map(|storage| (node.clone(), storage.clone())))
    }

    /// What is listed at a place that it has left. One that was `known` to be stays so whatever is done
    /// to it: who mounts a disk changes its time.
    fn left<'v>(
        &self,
        place: &Place,
        places: &'v Places,
        known: &BTreeMap<&str, &Discrepancy>,
    ) -> impl Iterator<Item = &'v Volume> {
        let vmid = self.guest.vmid;
        let (first, last) = (self.began.saturating_sub(SLACK), self.ended.saturating_add(SLACK));
        let stood = self.stood.get(&place.1);
        let stood_here = move |disk: &Volume| stood.is_none_or(|stood| stood.contains(&disk.id));
        let is_elsewhere = place.0 != self.node;
        let is_shared = places.is_shared(place);
        let disks = places.disks(place).unwrap_or_default().iter();
        disks.filter(move |disk| {
            let left = known.get(disk.id.as_str()).and_then(|one| one.volume.as_ref());
            let was_known = left.is_some_and(|left| left.operation == self.operation);
            let was_there = match is_shared {
                // It looked at the same storage, from another node.
                Some(true) => stood_here(disk),
                _ if !is_elsewhere => stood_here(disk),
                Some(false) => false,
                None => !was_known,
            };
            is_disk_of(disk, vmid)
                && !was_there
                && disk.created.is_none_or(|created| {
                    (created >= first || self.replaced.contains(&disk.id))
                        && (created <= last || was_known)
                })
        })
    }
}

impl Left {
    /// Follows the log to its end.
    pub(super) async fn read(&mut self, store: &Store) -> Result<(), Error> {
        let Self { operations, snapshots, cursors, .. } = self;
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
                    if let ("abandoned", Some(last)) = (end, traces.last()) {
                        snapshots.given_up(id, &last.plan);
                    }
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

    /// Snapshots that are left on a host.
    pub(super) async fn find_snapshots(
        &self,
        look: &Look<'_>,
        places: &mut Places,
        known: &[Discrepancy],
    ) -> Vec<Discrepancy> {
        self.snapshots.find(look, places, known).await
    }

    /// Volumes that are left on a host. What cannot be told leaves what was `known` of it as it was.
    pub(super) async fn find(
        &mut self,
        look: &Look<'_>,
        places: &mut Places,
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
            // A host that was removed and registered again is the same cluster.
            let GuestRef { cluster, vmid, .. } = &leaver.guest;
            *cluster == look.cluster && is_unlisted(*vmid)
        });
        let leavers: Vec<&Leaver> = leavers.collect();
        for leaver in &leavers {
            for place in leaver.places() {
                places.read(look, &place).await;
            }
            for node in &leaver.elsewhere {
                places.read_storages(look, node).await;
            }
        }
        let left = left(&leavers, places, &known);
        let names = left.keys().map(|id| file_name(id).to_owned()).collect();
        users.look_for(&names, look).await;
        let is_unread = |one: &&Discrepancy| {
            one.volume.as_ref().is_some_and(|LeftVolume { storage, id, .. }| {
                let place = (one.node.clone(), storage.clone());
                !left.contains_key(id.as_str()) && places.is_unread(&place)
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
                    snapshot: None,
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
    places: &'l Places,
    known: &BTreeMap<&str, &Discrepancy>,
) -> BTreeMap<&'l str, (&'l Leaver, Place)> {
    let mut left: BTreeMap<&str, (&Leaver, Place)> = BTreeMap::new();
    for leaver in leavers.iter().copied() {
        for place in leaver.places() {
            for volume in leaver.left(&place, places, known) {
                let last = left.get(volume.id.as_str()).map(|(last, _)| last.ended);
                if last.is_none_or(|last| last <= leaver.ended) {
                    left.insert(&volume.id, (leaver, place.clone()));
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
