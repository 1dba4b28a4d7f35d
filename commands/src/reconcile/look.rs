//! One reading of a host, and how its applications differ from it.

use std::collections::BTreeMap;

use proximity_domain::application::{Application, Command, Live, Loss, Sighting};
use proximity_domain::host::{Discrepancy, DiscrepancyKind};
use proximity_domain::{ApplicationId, ClusterName, HostId, Vmid};

use super::known::{Known, KnownApplication};
use super::{Findings, Reconciler};
use crate::actor::Actor;
use crate::dispatch::Unit;
use crate::error::Error;
use crate::marker::Belongs;
use crate::ports::{Guest, Hypervisor, HypervisorError, TaskSummary};

/// Why a list without a guest concludes nothing: it may be filtered.
pub(super) const EMPTY: &str = "it lists no guest at all";

/// What a host said.
pub(super) struct Look<'a> {
    pub(super) hypervisor: &'a dyn Hypervisor,
    pub(super) host: HostId,
    pub(super) cluster: ClusterName,
    /// By number, those that its node could tell of and those that it could not.
    pub(super) guests: BTreeMap<Vmid, Guest>,
    /// Why what is not listed may be there all the same.
    pub(super) inconclusive: Option<&'static str>,
    /// Nothing is removed: the log was restored from a backup, and nobody has confirmed that yet.
    pub(super) only: bool,
}

impl<'a> Look<'a> {
    /// Reads a host once.
    pub(super) async fn take(
        hypervisor: &'a dyn Hypervisor,
        host: HostId,
        cluster: ClusterName,
    ) -> Result<Self, Error> {
        let identity = hypervisor.identity().await?;
        let sees_all = hypervisor.sees_all_guests().await?;
        let guests = hypervisor.guests().await?;
        let inconclusive = if identity.cluster != cluster {
            Some("it answers as another cluster")
        } else if !identity.quorate {
            Some("the cluster has no quorum")
        } else if !sees_all {
            Some("its credential may not see all guests (VM.Audit on /vms)")
        } else if guests.is_empty() {
            Some(EMPTY)
        } else {
            None
        };
        let guests = if identity.cluster == cluster { guests } else { Vec::new() };
        let guests = guests.into_iter().map(|guest| (guest.vmid, guest)).collect();
        Ok(Self { hypervisor, host, cluster, guests, inconclusive, only: false })
    }

    /// Whether a number that is not listed is free: only of a conclusive look, only while no task
    /// works on it, and only when Proxmox says so.
    pub(super) async fn is_absent(&self, vmid: Vmid) -> Result<bool, Error> {
        if self.inconclusive.is_some() {
            return Ok(false);
        }
        Ok(!self.is_busy(vmid).await? && self.hypervisor.vmid_is_free(vmid).await?)
    }

    /// Whether a container that was seen as nothing but a lock is what a creation or a destruction has left:
    /// no task works on it, and it has not become more since.
    pub(super) async fn is_broken_off(&self, listed: &Guest) -> Result<bool, HypervisorError> {
        if self.is_busy(listed.vmid).await? {
            return Ok(false);
        }
        let config = self.hypervisor.config(&listed.node, listed.vmid).await?;
        Ok(config.is_some_and(|config| config.is_only_a_lock()))
    }

    /// Whether a task that may change the guest with this number runs anywhere.
    pub(super) async fn is_busy(&self, vmid: Vmid) -> Result<bool, HypervisorError> {
        Ok(self.hypervisor.tasks_of(vmid).await?.iter().any(TaskSummary::is_at_work))
    }
}

/// What a look says of an application.
#[derive(Default)]
struct Seen {
    /// `None` when it is as recorded, or cannot be told.
    sighting: Option<Sighting>,
    /// What stands under its number is left of a creation, or of a restore over its container.
    is_broken_off: bool,
}

impl From<Option<Sighting>> for Seen {
    fn from(sighting: Option<Sighting>) -> Self {
        Self { sighting, is_broken_off: false }
    }
}

impl Seen {
    /// The disks of such a container are gone. Whose a lock without a name is nobody can tell under a
    /// number that was another's already.
    fn broken_off(look: &Look<'_>, live: &Live) -> Self {
        let is_told = look.inconclusive.is_none() && live.lost != Some(Loss::Replaced);
        Self { sighting: is_told.then_some(Sighting::Missing(Loss::Gone)), is_broken_off: true }
    }
}

impl Reconciler {
    /// Compares the applications of a host with what it listed.
    pub(super) async fn compare(
        &self,
        look: &Look<'_>,
        known: &Known,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        for (id, application) in &known.applications {
            let Some(live) = settled(application, look) else { continue };
            findings.compared += 1;
            let Seen { sighting, is_broken_off } = match self.sight(look, id, live).await {
                Ok(seen) => seen,
                Err(error) => {
                    // The others can be compared all the same; this one is looked at next time.
                    tracing::info!(application = %id, %error, "an application was not compared");
                    continue;
                }
            };
            let guest = &live.requested.guest;
            if let Some(listed) = look.guests.get(&guest.vmid) {
                let kind = match &sighting {
                    _ if is_broken_off => Some(DiscrepancyKind::BrokenOff),
                    Some(Sighting::Missing(Loss::Replaced)) => Some(DiscrepancyKind::Stranger),
                    Some(Sighting::Present { .. }) if is_renamed(live, listed) => {
                        Some(DiscrepancyKind::Renamed)
                    }
                    // What is being made has no name of its own yet.
                    Some(Sighting::Missing(Loss::Gone) | Sighting::Present { .. }) | None => None,
                };
                findings.discrepancies.extend(kind.map(|kind| Discrepancy {
                    vmid: guest.vmid,
                    node: listed.node.clone(),
                    kind,
                    application: id.clone(),
                    volume: None,
                    snapshot: None,
                }));
            }
            if let Some(sighting) = sighting {
                self.observe(id, application, sighting, actor, findings).await?;
            }
        }
        Ok(())
    }

    /// What stands under an application's number.
    async fn sight(&self, look: &Look<'_>, id: &ApplicationId, live: &Live) -> Result<Seen, Error> {
        let guest = &live.requested.guest;
        let Some(listed) = look.guests.get(&guest.vmid) else {
            let absent = look.is_absent(guest.vmid).await?;
            return Ok(absent.then_some(Sighting::Missing(Loss::Gone)).into());
        };
        if !listed.is_container {
            return Ok(Some(Sighting::Missing(Loss::Replaced)).into());
        }
        // Its node is away: what it does there is not known.
        let Some(runs) = listed.running else { return Ok(Seen::default()) };
        let as_recorded = live.lost.is_none()
            && runs == live.running
            && listed.node == guest.node
            && !is_renamed(live, listed);
        if as_recorded {
            return Ok(Seen::default());
        }
        // The list may be some seconds old, and says nothing of whose it is.
        let Some(config) = look.hypervisor.config(&listed.node, guest.vmid).await? else {
            return Ok(Seen::default());
        };
        if config.is_being_created() {
            return Ok(if look.is_broken_off(listed).await? {
                Seen::broken_off(look, live)
            } else {
                Seen::default()
            });
        }
        // A destruction that goes on leaves no name for a moment; the next look sees its end.
        if config.is_destroyed() && look.is_busy(guest.vmid).await? {
            return Ok(Seen::default());
        }
        let belongs = self.markers.judge(config.description.as_deref(), &look.cluster, guest.vmid);
        if !matches!(belongs, Belongs::Ours(marker) if marker.application == *id) {
            return Ok(Some(Sighting::Missing(Loss::Replaced)).into());
        }
        let Some(status) = look.hypervisor.status(&listed.node, guest.vmid).await? else {
            return Ok(Seen::default());
        };
        let address = if status.running {
            look.hypervisor.addresses(&listed.node, guest.vmid).await?.into_iter().next()
        } else {
            None
        };
        let (node, running) = (listed.node.clone(), status.running);
        Ok(Some(Sighting::Present { node, running, address }).into())
    }

    /// Stores what was seen, unless the application has gone on since.
    async fn observe(
        &self,
        id: &ApplicationId,
        known: &KnownApplication,
        sighting: Sighting,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let mut unit = Unit::new(&self.store, actor.metadata("application.observe"));
        unit.owned_by(known.owner);
        let applied = unit.apply::<Application>(id.as_str(), Command::Observe(sighting)).await;
        let events = applied.map_err(|refused| refused.or_else(Error::from))?;
        let unmoved = unit.sequence::<Application>(id.as_str()) == Some(known.sequence);
        if events > 0 && unmoved && self.store(unit, findings).await? {
            findings.changed.push(id.clone());
        }
        Ok(())
    }
}

/// An application of this host whose container is its own affair now: complete, and no operation runs.
pub(super) fn settled<'k>(known: &'k KnownApplication, look: &Look<'_>) -> Option<&'k Live> {
    let live = known.state.live()?;
    let here =
        live.requested.guest.host == look.host && live.requested.guest.cluster == look.cluster;
    (here && live.complete && live.current.is_none()).then_some(live)
}

/// Whether its container has another name than the application's host name. An adopted one keeps its own.
fn is_renamed(live: &Live, listed: &Guest) -> bool {
    live.requested.origin != proximity_domain::application::Origin::Adopted
        && listed.name.as_deref().is_some_and(|name| {
            !name.eq_ignore_ascii_case(live.requested.holdings.hostname.as_str())
        })
}
