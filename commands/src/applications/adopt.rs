//! One call takes a container that someone else made: what it is is read first, then stored as one
//! append; its marker is the operation's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proximity_domain::application::{Application, Command as App, Endpoint, Origin, Requested};
use proximity_domain::host::Host;
use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{AdoptPlan, GuestRef, Health, Holdings, Plan, Probe};
use proximity_domain::{
    ApplicationId, ClusterName, EnvValue, HostId, Hostname, NodeName, OperationId, Port, SecretId,
    UserId, Vmid,
};
use proximity_eventstore::{SideWrite, tables};
use uuid::Uuid;

use super::capture::{self, Captured};
use super::deploy::{Losses, Lost, judged, lost, note};
use super::{Accepted, Applications};
use crate::dispatch::{Refused, Unit, load};
use crate::error::Error;
use crate::marker::Belongs;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Admin, give};
use crate::ports::{ClusterView, GuestConfig, Hypervisor};
use crate::rows::text;
use crate::saga;
use crate::secret::Secret;
use crate::secrets::of_application;

/// What an adopted container is called when nothing else is said.
const CUSTOM: &str = "custom";
/// Seconds within which an adopted application answers after a start.
const PATIENCE_S: u32 = 60;

/// What the caller sent, as sent.
#[derive(Debug, Clone, Default)]
pub struct AdoptRequest {
    pub vmid: i64,
    pub node_name: String,
    /// Needed when several hosts have a node of this name.
    pub host_id: Option<i64>,
    /// A catalog id, or `custom`.
    pub suggested_type: Option<String>,
    pub port_to_expose: Option<i64>,
    /// By default the container's own.
    pub hostname: Option<String>,
}

/// What was accepted.
pub struct Adopting {
    pub accepted: Done<Accepted>,
    pub vmid: Vmid,
    pub node: NodeName,
    /// What it is adopted as.
    pub kind: String,
}

/// The request, parsed.
struct Wanted {
    owner: UserId,
    vmid: Vmid,
    node: NodeName,
    host: Option<HostId>,
    kind: String,
    port: Option<Port>,
    hostname: Option<Hostname>,
}

/// The container as it was read.
struct Found {
    guest: GuestRef,
    config: GuestConfig,
    hostname: Hostname,
    captured: Captured,
    running: bool,
}

impl Applications {
    /// Accepts the adoption of a container; the caller owns it from then on.
    pub async fn adopt(
        &self,
        admin: &Admin,
        request: &AdoptRequest,
        key: Option<&OnceKey>,
    ) -> Result<Adopting, Error> {
        let owner = admin.actor().user().ok_or(Error::Unauthenticated)?;
        let wanted = parse(owner, request)?;
        if wanted.kind != CUSTOM && self.catalog.current().get(&wanted.kind).is_none() {
            let detail = "a type is a catalog id, or `custom`";
            return Err(Error::invalid("suggested_type", "suggested_type.invalid", detail));
        }
        let (vmid, node, kind) = (wanted.vmid, wanted.node.clone(), wanted.kind.clone());
        let mut losses = Losses::default();
        loop {
            if let Some(first) = once::kept(&self.store, admin.actor(), key).await? {
                return Ok(Adopting { accepted: first, vmid, node, kind });
            }
            match self.attempt_adoption(admin, &wanted, key).await {
                Ok(accepted) => return Ok(Adopting { accepted, vmid, node, kind }),
                Err(lost) => losses.again(lost).await?,
            }
        }
    }

    async fn attempt_adoption(
        &self,
        admin: &Admin,
        wanted: &Wanted,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Lost> {
        let found = self.look(wanted).await?;
        let operation = OperationId(Uuid::now_v7());
        let application = ApplicationId::new(&wanted.kind, rand::random())
            .map_err(|error| Error::value("suggested_type", error))?;
        let meta = admin.actor().metadata("application.adopt").owned_by(wanted.owner);
        let mut unit = Unit::new(&self.store, meta.correlated(operation));
        let host = unit.load::<Host>(&found.guest.host.to_string()).await?;
        if host.registration().is_none_or(|host| !host.is_active || host.suspended.is_some()) {
            let gone = "the host was removed or suspended a moment ago";
            return Err(Error::conflict("host.gone", gone).into());
        }
        let holdings = Holdings {
            hostname: found.hostname.clone(),
            // It keeps its own ports: they are no lease of ours.
            public_port: None,
            internal_port: None,
            address: None,
        };
        let holder = Holder::Application(application.clone());
        self.hold(&mut unit, &found, &holdings, &holder).await?;
        let mut config = BTreeMap::new();
        let now = self.clock.now();
        for (name, value) in found.captured.plain {
            config.insert(name, EnvValue::Plain(value));
        }
        for (name, value) in found.captured.secret {
            let id = SecretId(Uuid::new_v4());
            let owner = of_application(&application, &name);
            self.secrets.seal_into(&mut unit, id, &owner, 1, &Secret::new(value), now).await?;
            config.insert(name, EnvValue::Secret(id));
        }
        let plan = Plan::Adopt(Box::new(AdoptPlan {
            guest: found.guest.clone(),
            holdings: holdings.clone(),
            digest: found.config.digest.clone(),
            was_running: found.running,
        }));
        let entry = self.catalog.current().get(&wanted.kind).cloned();
        let name =
            entry.as_ref().map_or_else(|| found.hostname.to_string(), |app| app.name.clone());
        let requested = Requested {
            owner: wanted.owner,
            operation,
            catalog_id: wanted.kind.clone(),
            catalog_version: entry.as_ref().map(|app| app.version.clone()).unwrap_or_default(),
            name,
            guest: found.guest.clone(),
            holdings,
            resources: found.captured.resources,
            environment: BTreeMap::new(),
            config,
            endpoint: wanted.port.map(endpoint),
            health: health(wanted.port),
            icon: entry.as_ref().and_then(|app| app.icon.clone()).unwrap_or_default(),
            category: entry.as_ref().map(|app| app.category.clone()).unwrap_or_default(),
            description: entry.map(|app| app.description.clone()).unwrap_or_default(),
            origin: Origin::Adopted,
        };
        let request = App::Request(Box::new(requested));
        judged(unit.apply::<Application>(application.as_str(), request).await)?;
        let planned = Op::Plan {
            application: application.clone(),
            owner: wanted.owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.deadline(self.limits.other),
        };
        judged(unit.apply::<Operation>(&operation.to_string(), planned).await)?;
        unit.write(give(&application, wanted.owner));
        unit.write(give(&operation, wanted.owner));
        unit.write(SideWrite::Insert {
            table: &tables::HOST_USAGE,
            row: vec![("application", text(&application)), ("host_id", text(found.guest.host))],
        });
        let accepted = Accepted { application, operation: Some(operation) };
        unit.idempotent(once::keep(admin.actor(), key, &accepted)?);
        let committed = unit.commit().await.map_err(lost)?;
        Ok(once::done(committed, accepted)?)
    }

    /// Leases of the number and the hostname; what was found to be a stranger's is ours from now on, and
    /// so is what stands under a number that only its archives keep from everyone.
    async fn hold(
        &self,
        unit: &mut Unit<'_>,
        found: &Found,
        holdings: &Holdings,
        holder: &Holder,
    ) -> Result<(), Lost> {
        let vmid = found.guest.vmid_lease();
        let (key, now) = (vmid.to_string(), self.clock.now());
        let clear = lease::Command::Clear { now };
        let commands = match unit.load::<Lease>(&key).await? {
            Lease::Foreign => vec![clear],
            Lease::Quarantined { until } if until <= now => {
                let reason = "a container without our marker stands under it".to_owned();
                vec![lease::Command::FindForeign { reason }, clear]
            }
            Lease::Free | Lease::Held { .. } | Lease::Quarantined { .. } => vec![],
        };
        for command in commands {
            let judged = unit.apply::<Lease>(&key, command).await;
            judged.map_err(|refused| refused.or_else(|why| crate::leases::refused(&vmid, &why)))?;
        }
        for key in holdings.leases(&found.guest.cluster).into_iter().chain([vmid]) {
            let acquire = lease::Command::Acquire { holder: holder.clone() };
            match unit.apply::<Lease>(&key.to_string(), acquire).await {
                Ok(_) => {}
                Err(Refused::Judged(why)) => {
                    return Err(match crate::leases::refused(&key, &why) {
                        Error::Conflict { code: "hostname.taken", detail } => Error::conflict(
                            "hostname.taken",
                            format!("{detail}: send another one as `hostname`"),
                        ),
                        other => other,
                    }
                    .into());
                }
                Err(Refused::Failed(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads the container in full, or says why it cannot be adopted.
    async fn look(&self, wanted: &Wanted) -> Result<Found, Error> {
        let clusters = self.clusters.seen().await?;
        let view = on(&clusters, wanted)?;
        let hypervisor = self.hypervisors.of(view.host).await?;
        let (node, vmid) = (&wanted.node, wanted.vmid);
        let Some(config) = hypervisor.config(node, vmid).await? else {
            return Err(Error::invalid(
                "vmid",
                "container.unknown",
                format!("there is no container {vmid} on node {node}"),
            ));
        };
        self.is_free(&config, view, vmid).await?;
        let Some(status) = hypervisor.status(node, vmid).await? else {
            return Err(Error::conflict("container.locked", "the container is on the move"));
        };
        let hostname = hostname(wanted, &config)?;
        let captured = capture::read(&config, &self.seen(&*hypervisor, vmid).await?)?;
        let guest =
            GuestRef { host: view.host, cluster: view.cluster.clone(), node: node.clone(), vmid };
        Ok(Found { guest, config, hostname, captured, running: status.running })
    }

    async fn seen(
        &self,
        hypervisor: &dyn Hypervisor,
        vmid: Vmid,
    ) -> Result<Option<crate::ports::Guest>, Error> {
        Ok(hypervisor.guests().await?.into_iter().find(|guest| guest.vmid == vmid))
    }

    /// Whether nobody else has it.
    async fn is_free(
        &self,
        config: &GuestConfig,
        view: &ClusterView,
        vmid: Vmid,
    ) -> Result<(), Error> {
        let refuse = |code, detail: String| Err(Error::conflict(code, detail));
        let description = config.description.as_deref();
        if let Belongs::Ours(marker) = self.markers.judge(description, &view.cluster, vmid) {
            let id = &marker.application;
            let (state, _) = load::<Application>(&self.store, id.as_str()).await?;
            return refuse("container.managed", managed(&state, id, &view.cluster, vmid));
        }
        if self.markers.another(description.unwrap_or_default()).is_some() {
            return refuse(
                "container.managed_elsewhere",
                "its notes say that another installation of Proximity manages it: release it there, \
                 or take that line out of its notes"
                    .to_owned(),
            );
        }
        if config.rest.get("template").is_some_and(|flag| flag == "1") {
            let detail = "a template cannot be started, and so not be adopted".to_owned();
            return refuse("container.template", detail);
        }
        if let Some(lock) = &config.lock {
            let detail = format!("it is locked ({lock}): try again when that has ended");
            return refuse("container.locked", detail);
        }
        if description.map_or(0, |text| text.chars().count()) > capture::LONGEST_NOTES {
            let detail = format!(
                "its notes leave no room for our marker: shorten them to {} characters",
                capture::LONGEST_NOTES
            );
            return refuse("container.notes_too_long", detail);
        }
        Ok(())
    }
}

/// What is said of a container that carries our marker: one that was kept when its application went, or got
/// another container, is taken by whoever takes the marker out of its notes.
fn managed(state: &Application, id: &ApplicationId, cluster: &ClusterName, vmid: Vmid) -> String {
    let now = match state {
        Application::Live(live) => {
            let guest = &live.requested.guest;
            if live.current.is_some() || (&guest.cluster, guest.vmid) == (cluster, vmid) {
                return format!("this container is the application {id}'s");
            }
            format!("which has container {} now", guest.vmid)
        }
        Application::Failed(failed) if failed.current.is_some() => {
            return format!("this container is the application {id}'s");
        }
        Application::Failed(_) => "which has no container any more".to_owned(),
        Application::Removed => "which was deleted".to_owned(),
        Application::Absent => "which is not known here".to_owned(),
    };
    format!(
        "its notes carry the marker of application {id}, {now}: to adopt it, take the line that starts \
         with `proximity/` out of its notes"
    )
}

fn parse(owner: UserId, request: &AdoptRequest) -> Result<Wanted, Error> {
    let mut wrong = Vec::new();
    let vmid = note(&mut wrong, "vmid", Vmid::try_from(request.vmid));
    let node = note(&mut wrong, "node_name", request.node_name.parse::<NodeName>());
    let port = request
        .port_to_expose
        .and_then(|port| note(&mut wrong, "port_to_expose", Port::try_from(port)));
    let hostname = request
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
        .and_then(|name| note(&mut wrong, "hostname", name.parse::<Hostname>()));
    let kind = request.suggested_type.as_deref().filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or(CUSTOM).to_owned();
    // The id that it becomes a part of says what it may be made of.
    note(
        &mut wrong,
        "suggested_type",
        ApplicationId::new(&kind, 0).map_err(|_| proximity_domain::ValueError {
            code: "suggested_type.invalid",
            message: "a type is a catalog id, or `custom`".to_owned(),
        }),
    );
    match (vmid, node) {
        (Some(vmid), Some(node)) if wrong.is_empty() => {
            let host = request.host_id.map(HostId);
            Ok(Wanted { owner, vmid, node, host, kind, port, hostname })
        }
        _ => Err(Error::Invalid(wrong)),
    }
}

/// The host that has this node; one that does not answer may have it too.
fn on<'a>(clusters: &'a Arc<Vec<ClusterView>>, wanted: &Wanted) -> Result<&'a ClusterView, Error> {
    let asked: Vec<_> =
        clusters.iter().filter(|view| wanted.host.is_none_or(|host| view.host == host)).collect();
    if let (Some(host), true) = (wanted.host, asked.is_empty()) {
        let detail = format!("there is no active host with the id {host}");
        return Err(Error::invalid("host_id", "host.unknown", detail));
    }
    let having: Vec<_> = asked
        .iter()
        .filter(|view| view.nodes.iter().any(|node| node.name == wanted.node))
        .collect();
    match having.as_slice() {
        [one] => Ok(one),
        [] if asked.iter().any(|view| view.nodes.is_empty()) => Err(Error::Unavailable {
            code: "hosts.unreachable",
            detail: format!("no host that answers has a node {}", wanted.node),
            retry_after: Duration::from_secs(30),
        }),
        [] => {
            let detail = format!("there is no node {}", wanted.node);
            Err(Error::invalid("node_name", "node.unknown", detail))
        }
        _ => {
            let detail = format!("several hosts have a node {}: send `host_id`", wanted.node);
            Err(Error::invalid("host_id", "node.ambiguous", detail))
        }
    }
}

fn hostname(wanted: &Wanted, config: &GuestConfig) -> Result<Hostname, Error> {
    if let Some(name) = &wanted.hostname {
        return Ok(name.clone());
    }
    let own = config.hostname.as_deref().unwrap_or_default();
    own.parse().map_err(|error: proximity_domain::ValueError| {
        let detail = format!(
            "the container's own name `{own}` cannot be used ({}): send one as `hostname`",
            error.message
        );
        Error::invalid("hostname", error.code, detail)
    })
}

fn endpoint(port: Port) -> Endpoint {
    let protocol = if matches!(port.get(), 443 | 8443) { "https" } else { "http" };
    Endpoint { port, protocol: protocol.to_owned(), path: None }
}

fn health(port: Option<Port>) -> Health {
    let probe = port.map_or(Probe::Running, |port| Probe::Tcp { port });
    Health { probe, within_s: PATIENCE_S }
}
