//! One call copies an application: how is decided before anything starts, and stored as one append.

use std::collections::{BTreeMap, HashMap};

use proximity_domain::application::{Application, Command as App, Live, Origin, Requested};
use proximity_domain::host::Host;
use proximity_domain::lease::Holder;
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{ClonePlan, CloneWay, GuestRef, Holdings, Kind, Plan};
use proximity_domain::{
    AddressMode, ApplicationId, EnvValue, Hostname, NetworkSettings, OperationId, SecretId, UserId,
};
use proximity_eventstore::{SideWrite, tables};
use uuid::Uuid;

use super::deploy::{Losses, Lost, judged, lost, take};
use super::{Accepted, Applications};
use crate::dispatch::{Unit, load};
use crate::error::Error;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Owned, give};
use crate::ports::SecretReader as _;
use crate::rows::text;
use crate::saga;
use crate::secret_uses::By;
use crate::secrets::of_application;

/// What the caller sent, as sent.
#[derive(Debug, Clone, Default)]
pub struct CloneRequest {
    pub new_hostname: String,
    /// Stop the application for the time of the copy when its storage has no snapshots.
    pub allow_downtime: bool,
}

/// What an attempt is made of, besides the source.
struct Wanted {
    hostname: Hostname,
    owner: UserId,
    network: NetworkSettings,
    allow_downtime: bool,
}

impl Applications {
    /// Accepts a copy of an application for the caller.
    pub async fn clone_application(
        &self,
        source: &Owned<ApplicationId>,
        request: &CloneRequest,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Error> {
        let hostname =
            request.new_hostname.parse().map_err(|error| Error::value("new_hostname", error))?;
        let (_, network) = self.settings().await?;
        let wanted = Wanted {
            hostname,
            owner: source.actor().user().unwrap_or_else(|| source.owner()),
            network,
            allow_downtime: request.allow_downtime,
        };
        let mut losses = Losses::default();
        loop {
            if let Some(first) = once::kept(&self.store, source.actor(), key).await? {
                return Ok(first);
            }
            match self.attempt_clone(source, &wanted, key).await {
                Ok(done) => return Ok(done),
                Err(Lost::Pick) if source.actor().agreed.is_some() => {
                    return Err(crate::agreed::changed());
                }
                Err(lost) => losses.again(lost).await?,
            }
        }
    }

    async fn attempt_clone(
        &self,
        source: &Owned<ApplicationId>,
        wanted: &Wanted,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Lost> {
        let operation = OperationId(Uuid::now_v7());
        let id = source.id();
        let (state, _) = load::<Application>(&self.store, id.as_str()).await?;
        // Refused before Proxmox is asked anything.
        let begin = App::BeginOperation { operation, kind: Kind::Clone };
        state.decide(begin.clone()).map_err(Error::from)?;
        let live = state.live().ok_or(Error::NotFound)?;
        let way = self.way(live, wanted.allow_downtime, operation).await?;

        let guest = &live.requested.guest;
        let clusters = self.clusters.seen().await?;
        let Some(cluster) = clusters.iter().find(|view| view.host == guest.host) else {
            return Err(host_gone().into());
        };
        let is_static = wanted.network.mode() == AddressMode::Static;
        // Held until the append is answered, so that no other call of this process picks the same.
        let picked = {
            let network = is_static.then_some(&wanted.network);
            self.pools.pick(cluster, network, source.actor().picks()).await?
        };
        let guest = GuestRef { vmid: picked.vmid, ..guest.clone() };
        self.confirm(source.actor(), guest.host, guest.vmid).await?;
        let holdings = Holdings {
            hostname: wanted.hostname.clone(),
            public_port: Some(picked.public_port),
            internal_port: Some(picked.internal_port),
            address: picked.address,
        };
        let copy = ApplicationId::new(&live.requested.catalog_id, rand::random())
            .map_err(|error| Error::internal("a catalog id makes no application id", error))?;

        let meta = source.actor().metadata("application.clone").owned_by(wanted.owner);
        let mut unit = Unit::new(&self.store, meta.correlated(operation));
        // Read only: the append is refused if the host is removed or changed meanwhile.
        let host = unit.load::<Host>(&guest.host.to_string()).await?;
        if host.registration().is_none_or(|host| !host.is_active || host.suspended.is_some()) {
            return Err(host_gone().into());
        }
        if unit.load::<Application>(id.as_str()).await? != state {
            return Err(Lost::Pick);
        }
        judged(unit.apply::<Application>(id.as_str(), begin).await)?;
        let holder = Holder::Application(copy.clone());
        for lease in holdings.leases(&guest.cluster) {
            take(&mut unit, &lease, holder.clone()).await?;
        }
        take(&mut unit, &guest.vmid_lease(), holder).await?;

        let by = By::caller(source.actor()).within(operation);
        let requested = self.copied(&mut unit, source.id(), live, &copy, &by).await?;
        let requested = Requested {
            owner: wanted.owner,
            operation,
            guest: guest.clone(),
            holdings: holdings.clone(),
            ..requested
        };
        let health = requested.health.clone();
        let patience = std::time::Duration::from_secs(health.within_s.into());
        let plan = Plan::Clone(Box::new(ClonePlan {
            source: id.clone(),
            source_guest: live.requested.guest.clone(),
            guest: guest.clone(),
            holdings,
            way,
            network: wanted.network.clone(),
            health,
            agreed: source.actor().agreed.is_some(),
        }));
        let request = App::Request(Box::new(requested));
        judged(unit.apply::<Application>(copy.as_str(), request).await)?;
        let planned = Op::Plan {
            application: copy.clone(),
            owner: wanted.owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.deadline(self.limits.disks + patience),
        };
        judged(unit.apply::<Operation>(&operation.to_string(), planned).await)?;
        unit.write(give(&copy, wanted.owner));
        unit.write(give(&operation, wanted.owner));
        unit.write(SideWrite::Insert {
            table: &tables::HOST_USAGE,
            row: vec![("application", text(&copy)), ("host_id", text(guest.host))],
        });
        let accepted = Accepted { application: copy, operation: Some(operation) };
        unit.idempotent(once::keep(source.actor(), key, &accepted)?);
        let committed = unit.commit().await.map_err(lost)?;
        Ok(once::done(committed, accepted)?)
    }

    /// Asks Proxmox whether the source runs, and whether it can be copied while it does.
    async fn way(
        &self,
        live: &Live,
        allow_downtime: bool,
        operation: OperationId,
    ) -> Result<CloneWay, Error> {
        let GuestRef { host, node, vmid, .. } = &live.requested.guest;
        let hypervisor = self.hypervisors.of(*host).await?;
        let Some(status) = hypervisor.status(node, *vmid).await? else {
            return Err(Error::conflict(
                "application.container_missing",
                format!("its container {vmid} is not on node {node}"),
            ));
        };
        if !status.running {
            return Ok(CloneWay::Stopped);
        }
        if hypervisor.can_snapshot(node, *vmid).await? {
            // Unique, so that a leftover of another operation is never taken for this one's.
            return Ok(CloneWay::Snapshot { name: format!("px{}", operation.0.simple()) });
        }
        if allow_downtime {
            return Ok(CloneWay::Downtime);
        }
        Err(Error::conflict(
            "clone.needs_downtime",
            "its storage has no snapshots, so it has to be stopped for the time of the copy: stop it \
             first, or send `allow_downtime: true`",
        ))
    }

    /// What the copy keeps of its source. Its secrets are sealed anew: a ciphertext opens for the
    /// application that it was made for, and for no other.
    async fn copied(
        &self,
        unit: &mut Unit<'_>,
        source: &ApplicationId,
        live: &Live,
        copy: &ApplicationId,
        by: &By,
    ) -> Result<Requested, Error> {
        let mut requested = live.requested.clone();
        if requested.origin == Origin::Adopted {
            // The captured configuration is the original's.
            requested.config = BTreeMap::new();
        }
        requested.origin = Origin::Cloned { from: source.clone() };
        let now = self.clock.now();
        // A parameter's secret stands in the configuration and in the environment: it is one secret.
        let mut anew: HashMap<SecretId, SecretId> = HashMap::new();
        for (name, value) in requested.environment.iter_mut().chain(&mut requested.config) {
            let EnvValue::Secret(old) = value else { continue };
            let new = match anew.get(old) {
                Some(new) => *new,
                None => {
                    let secret = self.secrets.open(*old, source, by).await?;
                    let new = SecretId(Uuid::new_v4());
                    let owner = of_application(copy, name);
                    self.secrets.seal_into(unit, new, &owner, 1, &secret, now).await?;
                    anew.insert(*old, new);
                    new
                }
            };
            *value = EnvValue::Secret(new);
        }
        Ok(requested)
    }
}

pub(super) fn host_gone() -> Error {
    Error::conflict("host.gone", "the host was removed or suspended a moment ago")
}
