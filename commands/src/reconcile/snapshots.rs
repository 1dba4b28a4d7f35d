//! Snapshots that copies have left on the containers that they were made of: an operation that was given up
//! removes its own no more, and the name says whose it is.

use std::collections::BTreeMap;

use proximity_domain::host::{Discrepancy, DiscrepancyKind, LeftSnapshot};
use proximity_domain::plan::{CloneWay, GuestRef, Plan};
use proximity_domain::{ApplicationId, OperationId};

use super::look::Look;
use super::places::Places;

/// What each copy that was given up may have left. None is ever forgotten, as with volumes.
#[derive(Default)]
pub(super) struct Snapshots(BTreeMap<OperationId, Left>);

struct Left {
    source: ApplicationId,
    guest: GuestRef,
    name: String,
}

impl Snapshots {
    /// Takes note of an operation that was given up.
    pub(super) fn given_up(&mut self, operation: OperationId, plan: &Plan) {
        let Plan::Clone(plan) = plan else { return };
        if let CloneWay::Snapshot { name } = &plan.way {
            let (source, guest, name) =
                (plan.source.clone(), plan.source_guest.clone(), name.clone());
            self.0.insert(operation, Left { source, guest, name });
        }
    }

    /// Those that are there. What cannot be told leaves what was `known` as it was.
    pub(super) async fn find(
        &self,
        look: &Look<'_>,
        places: &mut Places,
        known: &[Discrepancy],
    ) -> Vec<Discrepancy> {
        let mut found = Vec::new();
        for (operation, Left { source, guest, name }) in &self.0 {
            if guest.cluster != look.cluster {
                continue;
            }
            let was_known = known
                .iter()
                .find(|one| one.snapshot.as_ref().is_some_and(|left| left.operation == *operation));
            let listed = look.guests.get(&guest.vmid);
            let Some(listed) = listed.filter(|listed| listed.is_container) else {
                if look.inconclusive.is_some() {
                    found.extend(was_known.cloned());
                }
                continue;
            };
            if places.is_silent(&listed.node) {
                found.extend(was_known.cloned());
                continue;
            }
            match look.hypervisor.snapshots(&listed.node, guest.vmid).await {
                Ok(names) if names.contains(name) => found.push(Discrepancy {
                    vmid: guest.vmid,
                    node: listed.node.clone(),
                    kind: DiscrepancyKind::LeftSnapshot,
                    application: source.clone(),
                    volume: None,
                    snapshot: Some(LeftSnapshot { name: name.clone(), operation: *operation }),
                }),
                Ok(_) => {}
                Err(error) => {
                    tracing::info!(vmid = %guest.vmid, %error, "its snapshots are not known");
                    places.note(&listed.node, &error);
                    found.extend(was_known.cloned());
                }
            }
        }
        found
    }
}
