//! Containers that carry our marker and that no application has: removed when this very log says that
//! they are leftovers, else reported.

use proximity_domain::application::Application;
use proximity_domain::host::{Discrepancy, DiscrepancyKind, Host};
use proximity_domain::lease::{Command as LeaseCommand, Lease};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{DeletePlan, GuestRef, Plan};
use proximity_domain::{ApplicationId, LeaseKey, OperationId, Vmid};
use uuid::Uuid;

use super::known::{Known, KnownApplication, Number};
use super::look::Look;
use super::{Findings, Reconciler};
use crate::actor::Actor;
use crate::clock::Micros;
use crate::dispatch::{Refused, Unit};
use crate::error::Error;
use crate::marker::Belongs;
use crate::policy::give;
use crate::ports::{Guest, GuestConfig, HypervisorError};
use crate::volumes::Belongings;
use crate::{host_usage, saga};

/// Names removals, so that two looks at one leftover plan one operation.
const REMOVAL: Uuid = Uuid::from_u128(0x8f1d_41c7_9a3e_4b52_9d06_27f2_5c90_e4ab);
/// Numbers of strangers that are asked about in one look.
const ASKED: usize = 20;

impl Reconciler {
    /// Looks at all numbers that were ever leased and that no application has now.
    pub(super) async fn sort_strays(
        &self,
        look: &Look<'_>,
        known: &Known,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let mut asked = 0;
        for ((cluster, vmid), number) in &known.numbers {
            if *cluster != look.cluster || matches!(number.lease, Lease::Held { .. }) {
                continue;
            }
            match look.guests.get(vmid) {
                Some(guest) if guest.is_container => {
                    self.judge(look, known, number, guest, actor, findings).await?;
                }
                Some(_) => {}
                None if number.lease == Lease::Foreign && asked < ASKED => {
                    asked += 1;
                    if look.is_absent(*vmid).await? {
                        let key = LeaseKey::Vmid(cluster.clone(), *vmid);
                        self.clear(&key, number, actor, findings).await?;
                    }
                }
                None => {}
            }
        }
        if look.only {
            self.find_unknown(look, known, findings).await?;
        }
        Ok(())
    }

    /// Containers of ours that this log knows nothing of: made after the backup that it comes from.
    async fn find_unknown(
        &self,
        look: &Look<'_>,
        known: &Known,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        for guest in look.guests.values().filter(|guest| guest.is_container) {
            if known.numbers.contains_key(&(look.cluster.clone(), guest.vmid)) {
                continue;
            }
            let Ok(Some(config)) = look.hypervisor.config(&guest.node, guest.vmid).await else {
                continue;
            };
            let description = config.description.as_deref();
            if let Belongs::Ours(marker) =
                self.markers.judge(description, &look.cluster, guest.vmid)
            {
                findings.discrepancies.push(Discrepancy {
                    vmid: guest.vmid,
                    node: guest.node.clone(),
                    kind: DiscrepancyKind::Orphan,
                    application: marker.application,
                    volume: None,
                    snapshot: None,
                });
            }
        }
        Ok(())
    }

    async fn judge(
        &self,
        look: &Look<'_>,
        known: &Known,
        number: &Number,
        guest: &Guest,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let config = match look.hypervisor.config(&guest.node, guest.vmid).await {
            Ok(Some(config)) if config.is_only_a_lock() => {
                findings.discrepancies.extend(broken_off(look, number, guest).await);
                return Ok(());
            }
            Ok(Some(config)) => config,
            // On the move, or away: its turn comes.
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::info!(vmid = %guest.vmid, %error, "a container was not looked at");
                return Ok(());
            }
        };
        let belongs = self.markers.judge(config.description.as_deref(), &look.cluster, guest.vmid);
        let Belongs::Ours(marker) = belongs else { return Ok(()) };
        let application = known.applications.get(&marker.application);
        if application.is_some_and(|known| known.state.current().is_some()) {
            return Ok(());
        }
        // A copy has its marker from its first moment; nothing locked is destroyed by itself.
        if config.lock.as_deref() == Some("create") {
            if !look.is_busy(guest.vmid).await.unwrap_or(true) {
                findings.discrepancies.push(Discrepancy {
                    vmid: guest.vmid,
                    node: guest.node.clone(),
                    kind: DiscrepancyKind::BrokenOff,
                    application: marker.application,
                    volume: None,
                    snapshot: None,
                });
            }
            return Ok(());
        }
        let now = self.clock.now();
        let leftover = application.filter(|owner| {
            !look.only
                && is_leftover(owner, number, &marker.application, now)
                && !was_left(known, look, number, guest.vmid)
        });
        let as_made = match leftover {
            Some(_) => is_as_made(look, guest, &config).await,
            None => Ok(false),
        };
        match (leftover, as_made) {
            (Some(known), Ok(true)) => {
                let application = &marker.application;
                let leftover = Leftover { application, known, number, guest };
                self.remove(leftover, look, actor, findings).await
            }
            (_, Err(error)) => {
                tracing::info!(vmid = %guest.vmid, %error, "a leftover was not looked at");
                Ok(())
            }
            _ => {
                findings.discrepancies.push(Discrepancy {
                    vmid: guest.vmid,
                    node: guest.node.clone(),
                    kind: DiscrepancyKind::Orphan,
                    application: marker.application,
                    volume: None,
                    snapshot: None,
                });
                Ok(())
            }
        }
    }

    /// Plans the removal of a leftover, once; it goes the way of every deletion.
    async fn remove(
        &self,
        leftover: Leftover<'_>,
        look: &Look<'_>,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let Leftover { application, known, number, guest } = leftover;
        let guest = GuestRef {
            host: look.host,
            cluster: look.cluster.clone(),
            node: guest.node.clone(),
            vmid: guest.vmid,
        };
        let key = guest.vmid_lease();
        let operation = removal(&key, number);
        let key = key.to_string();
        let meta = actor.metadata("reconcile.remove").correlated(operation);
        let mut unit = Unit::new(&self.store, meta);
        unit.owned_by(known.owner);
        // Both are asserted: what makes it a leftover still holds when the removal is stored.
        unit.load::<Application>(application.as_str()).await?;
        unit.load::<Lease>(&key).await?;
        let unmoved = unit.sequence::<Application>(application.as_str()) == Some(known.sequence)
            && unit.sequence::<Lease>(&key) == Some(number.sequence);
        let host = unit.load::<Host>(&look.host.to_string()).await?;
        if !unmoved || host.registration().is_none() {
            return Ok(());
        }
        let plan = Plan::Delete(DeletePlan {
            guest: Some(guest),
            holdings: None,
            was_running: false,
            adopted_by: None,
            replaced: false,
            detached: true,
        });
        let patience = Micros::try_from(self.patience.as_micros()).unwrap_or(Micros::MAX);
        let planned = Op::Plan {
            application: application.clone(),
            owner: known.owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.clock.now().saturating_add(patience),
        };
        match unit.apply::<Operation>(&operation.to_string(), planned).await {
            Ok(_) => {}
            // An earlier look has planned it.
            Err(Refused::Judged(_)) => return Ok(()),
            Err(Refused::Failed(error)) => return Err(error),
        }
        unit.write(give(&operation, known.owner));
        host_usage::begin(&mut unit, operation, look.host);
        if self.store(unit, findings).await? {
            findings.removals.push(operation);
        }
        Ok(())
    }

    /// A stranger's number is free again: it may be leased.
    async fn clear(
        &self,
        key: &LeaseKey,
        number: &Number,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let key = key.to_string();
        let mut unit = Unit::new(&self.store, actor.metadata("lease.clear"));
        let clear = LeaseCommand::Clear { now: self.clock.now() };
        let applied = unit.apply::<Lease>(&key, clear).await;
        applied.map_err(|refused| {
            refused.or_else(|error| Error::internal("a lease refused its end", error))
        })?;
        if unit.sequence::<Lease>(&key) == Some(number.sequence) {
            self.store(unit, findings).await?;
        }
        Ok(())
    }
}

/// A container that is to go.
struct Leftover<'a> {
    application: &'a ApplicationId,
    known: &'a KnownApplication,
    number: &'a Number,
    guest: &'a Guest,
}

/// The operation that removes what is left under a number: the same for every look at the same history.
fn removal(key: &LeaseKey, number: &Number) -> OperationId {
    let name = format!("{key}@{}", number.sequence);
    OperationId(Uuid::new_v5(&REMOVAL, name.as_bytes()))
}

/// What a creation or a destruction has left under a number that its application has given back: the last
/// one had to do with it. One that is made under a number that was seen free since is a stranger's.
async fn broken_off(look: &Look<'_>, number: &Number, guest: &Guest) -> Option<Discrepancy> {
    let application = number.last.clone()?;
    let was_given_back = number.given_back_by.is_some() && number.lease != Lease::Free;
    if !was_given_back {
        return None;
    }
    match look.is_broken_off(guest).await {
        Ok(is_broken_off) => is_broken_off.then(|| Discrepancy {
            vmid: guest.vmid,
            node: guest.node.clone(),
            kind: DiscrepancyKind::BrokenOff,
            application,
            volume: None,
            snapshot: None,
        }),
        Err(error) => {
            tracing::info!(vmid = %guest.vmid, %error, "a container was not looked at");
            None
        }
    }
}

/// Whether a person decided to leave what is there: by giving up the operation that gave the number
/// back, or the removal itself.
fn was_left(known: &Known, look: &Look<'_>, number: &Number, vmid: Vmid) -> bool {
    let key = LeaseKey::Vmid(look.cluster.clone(), vmid);
    number.given_back_by.is_some_and(|by| known.was_abandoned(by))
        || known.was_abandoned(removal(&key, number))
}

/// Whether a container has nothing but its root disk: volumes and snapshots are a person's. Those that a
/// copy or a restore has brought along cannot be told from them, and are somebody's data as well.
async fn is_as_made(
    look: &Look<'_>,
    guest: &Guest,
    config: &GuestConfig,
) -> Result<bool, HypervisorError> {
    let (hypervisor, node) = (look.hypervisor, &guest.node);
    Belongings::of(hypervisor, node, guest.vmid, config).await.map(|has| has.is_empty())
}

/// Whether the log says that this container was undone or deleted: its application is gone and was made
/// by us, and the number is still kept from everyone for just that. What turns up later was put there by
/// a person, also when archives keep the number in quarantine.
fn is_leftover(
    known: &KnownApplication,
    number: &Number,
    application: &ApplicationId,
    now: Micros,
) -> bool {
    let gone = matches!(known.state, Application::Removed | Application::Failed(_));
    gone && !known.adopted
        && matches!(number.lease, Lease::Quarantined { until } if now < until)
        && number.last.as_ref() == Some(application)
}
