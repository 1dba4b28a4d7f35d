//! One call deploys an application: everything is chosen once and stored as one append, or not at all.

use proximity_catalog::{CatalogApp, Deployment, Request, Sealed};
use proximity_domain::application::{Application, Command as App, Origin, Requested};
use proximity_domain::host::Host;
use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{DeployPlan, GuestRef, Holdings, Plan};
use proximity_domain::settings::{self, Settings};
use proximity_domain::{
    AddressMode, ApplicationId, HostId, Hostname, LeaseKey, NetworkSettings, NodeName, OperationId,
    Resources, SecretId, UserId,
};
use proximity_eventstore::{AppendError, SideWrite, tables};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use std::sync::Arc;
use uuid::Uuid;

use super::{Accepted, Applications};
use crate::actor::Actor;
use crate::agreed::changed;
use crate::dispatch::{Refused, Retries, Tried, Unit, load};
use crate::error::{Error, FieldError};
use crate::once::{self, Done, OnceKey};
use crate::placement::{Place, Wish, place};
use crate::policy::give;
use crate::pools::Picked;
use crate::ports::ClusterView;
use crate::rows::text;
use crate::saga;
use crate::secret::Secret;
use crate::secrets::of_application;

/// How often a pick from a pool may be lost to another server before the caller is asked to wait.
const MAX_PICKS: u32 = 100;

/// What the caller sent, as sent.
#[derive(Debug, Clone, Default)]
pub struct DeployRequest {
    pub catalog_id: String,
    pub hostname: String,
    pub config: Map<String, Value>,
    pub environment: Map<String, Value>,
    pub node: Option<String>,
    pub host_id: Option<i64>,
}

/// The request, parsed and resolved: all that does not depend on who else deploys right now.
struct Wanted {
    owner: UserId,
    app: Arc<CatalogApp>,
    hostname: Hostname,
    node: Option<NodeName>,
    host: Option<HostId>,
    network: NetworkSettings,
    deployment: Deployed,
    sealed: Sealed,
}

/// A [`Deployment`] without its values, which are sealed by then.
struct Deployed {
    source: proximity_domain::plan::Source,
    resources: Resources,
    unprivileged: bool,
    features: Option<String>,
    endpoint: Option<proximity_domain::application::Endpoint>,
    health: proximity_domain::plan::Health,
}

/// Why an attempt did not end in an append.
pub(super) enum Lost {
    /// A value from a pool went to another server.
    Pick,
    /// A stream of the decision moved.
    Stale(Tried),
}

/// Counts the attempts that were lost.
#[derive(Default)]
pub(super) struct Losses {
    retries: Retries,
    picks: u32,
}

impl Losses {
    /// Returns when another attempt may be made, and with the error when none helps.
    pub(super) async fn again(&mut self, lost: Lost) -> Result<(), Error> {
        match lost {
            Lost::Pick if self.picks < MAX_PICKS => {
                self.picks += 1;
                Ok(())
            }
            Lost::Pick => Err(Error::Unavailable {
                code: "store.contended",
                detail: "too many deployments at once; try again".to_owned(),
                retry_after: std::time::Duration::from_secs(1),
            }),
            Lost::Stale(tried) => self.retries.again(tried).await,
        }
    }
}

impl Applications {
    /// Accepts a deployment of the caller's own.
    pub async fn deploy(
        &self,
        actor: &Actor,
        request: &DeployRequest,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Error> {
        let owner = actor.user().ok_or(Error::Unauthenticated)?;
        let mut wanted: Option<Wanted> = None;
        let mut losses = Losses::default();
        loop {
            if let Some(first) = once::kept(&self.store, actor, key).await? {
                return Ok(first);
            }
            let wanted = match &wanted {
                Some(wanted) => wanted,
                None => wanted.insert(self.want(owner, request).await?),
            };
            let clusters = self.clusters.seen().await?;
            match self.attempt(actor, wanted, &clusters, key).await {
                Ok(done) => return Ok(done),
                Err(Lost::Pick) if actor.agreed.is_some() => return Err(changed()),
                Err(lost) => losses.again(lost).await?,
            }
        }
    }

    /// Parses everything and reports all that is wrong at once.
    async fn want(&self, owner: UserId, request: &DeployRequest) -> Result<Wanted, Error> {
        let mut wrong = Vec::new();
        let hostname = note(&mut wrong, "hostname", request.hostname.parse::<Hostname>());
        let node = request
            .node
            .as_deref()
            .filter(|name| !name.is_empty())
            .and_then(|name| note(&mut wrong, "node", name.parse::<NodeName>()));
        let app = self.catalog.current().get(&request.catalog_id).cloned();
        if app.is_none() {
            wrong.push(FieldError {
                field: "catalog_id".to_owned(),
                code: "catalog.unknown",
                detail: "there is no such application in the catalog".to_owned(),
            });
        }
        let (resources, network) = self.settings().await?;
        let deployment = app.as_ref().and_then(|app| {
            resolve(app, request, resources).map_err(|errors| wrong.extend(errors)).ok()
        });
        match (hostname, app, deployment) {
            (Some(hostname), Some(app), Some(deployment)) if wrong.is_empty() => {
                let Deployment {
                    source,
                    resources,
                    unprivileged,
                    features,
                    endpoint,
                    health,
                    values,
                } = deployment;
                Ok(Wanted {
                    owner,
                    app,
                    hostname,
                    node,
                    host: request.host_id.map(HostId),
                    network,
                    deployment: Deployed {
                        source,
                        resources,
                        unprivileged,
                        features,
                        endpoint,
                        health,
                    },
                    sealed: values.seal(|| SecretId(Uuid::new_v4())),
                })
            }
            _ => Err(Error::Invalid(wrong)),
        }
    }

    pub(super) async fn settings(&self) -> Result<(Resources, NetworkSettings), Error> {
        let (resources, _) = load::<Settings>(&self.store, settings::RESOURCES).await?;
        let (network, _) = load::<Settings>(&self.store, settings::NETWORK).await?;
        Ok((
            resources.resources.unwrap_or_else(settings::default_resources),
            network.network.unwrap_or_else(settings::default_network),
        ))
    }

    /// One choice of node and numbers, judged and stored.
    async fn attempt(
        &self,
        actor: &Actor,
        wanted: &Wanted,
        clusters: &[ClusterView],
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Lost> {
        let promises = self.pools.promises().await?;
        let agreed = actor.picks();
        let wish = match agreed {
            Some(picks) => Wish { host: picks.host.or(wanted.host), node: picks.node.as_ref() },
            None => Wish { host: wanted.host, node: wanted.node.as_ref() },
        };
        let place = place(clusters, &promises, wish, &wanted.deployment.source);
        let place = if agreed.is_some() { place.map_err(|_| changed())? } else { place? };
        let is_static = wanted.network.mode() == AddressMode::Static;
        let network = is_static.then_some(&wanted.network);
        // Held until the append is answered, so that no other call of this process picks the same.
        let picked = self.pools.pick(place.cluster, network, agreed).await?;
        self.confirm(actor, place.cluster.host, picked.vmid).await?;
        let operation = OperationId(Uuid::now_v7());
        let application = ApplicationId::new(&wanted.app.id, rand::random())
            .map_err(|error| Error::internal("a catalog id makes no application id", error))?;
        let meta = actor.metadata("application.deploy").owned_by(wanted.owner);
        let mut unit = Unit::new(&self.store, meta.correlated(operation));
        let names = Names { application: &application, operation };
        self.judge(&mut unit, wanted, &place, &picked, names).await?;
        let accepted = Accepted { application, operation: Some(operation) };
        unit.idempotent(once::keep(actor, key, &accepted)?);
        let committed = unit.commit().await.map_err(lost)?;
        Ok(once::done(committed, accepted)?)
    }

    async fn judge(
        &self,
        unit: &mut Unit<'_>,
        wanted: &Wanted,
        place: &Place<'_>,
        picked: &Picked,
        names: Names<'_>,
    ) -> Result<(), Lost> {
        let Names { application, operation } = names;
        // Read only: the append is refused if the host is removed or changed meanwhile.
        let host = unit.load::<Host>(&place.cluster.host.to_string()).await?;
        if host.registration().is_none_or(|host| !host.is_active || host.suspended.is_some()) {
            let gone = "the host was removed or suspended a moment ago";
            return Err(Error::conflict("host.gone", gone).into());
        }
        let guest = GuestRef {
            host: place.cluster.host,
            cluster: place.cluster.cluster.clone(),
            node: place.node.name.clone(),
            vmid: picked.vmid,
        };
        let holdings = Holdings {
            hostname: wanted.hostname.clone(),
            public_port: Some(picked.public_port),
            internal_port: Some(picked.internal_port),
            address: picked.address,
        };
        let holder = Holder::Application(application.clone());
        for lease in holdings.leases(&guest.cluster) {
            take(unit, &lease, holder.clone()).await?;
        }
        take(unit, &guest.vmid_lease(), holder).await?;

        let plan = DeployPlan { agreed: picked.agreed, ..plan(wanted, place, &guest, &holdings) };
        let plan = Plan::Deploy(Box::new(plan));
        let steps = saga::step_names(&plan);
        let patience = std::time::Duration::from_secs(wanted.deployment.health.within_s.into());
        let deadline = self.deadline(self.limits.deploy + patience);
        let requested = App::Request(Box::new(requested(wanted, guest, holdings, operation)));
        judged(unit.apply::<Application>(application.as_str(), requested).await)?;
        let planned = Op::Plan {
            application: application.clone(),
            owner: wanted.owner,
            plan: Box::new(plan),
            steps,
            deadline,
        };
        judged(unit.apply::<Operation>(&operation.to_string(), planned).await)?;
        unit.write(give(application, wanted.owner));
        unit.write(give(&operation, wanted.owner));
        unit.write(SideWrite::Insert {
            table: &tables::HOST_USAGE,
            row: vec![("application", text(application)), ("host_id", text(place.cluster.host))],
        });
        let now = self.clock.now();
        for secret in &wanted.sealed.secrets {
            let value = Secret::new(secret.value.expose_secret().to_owned());
            let belongs_to = of_application(application, &secret.name);
            self.secrets.seal_into(unit, secret.id, &belongs_to, 1, &value, now).await?;
        }
        Ok(())
    }
}

/// The ids of one attempt.
#[derive(Clone, Copy)]
struct Names<'a> {
    application: &'a ApplicationId,
    operation: OperationId,
}

fn plan(wanted: &Wanted, place: &Place<'_>, guest: &GuestRef, holdings: &Holdings) -> DeployPlan {
    let deployment = &wanted.deployment;
    DeployPlan {
        guest: guest.clone(),
        holdings: holdings.clone(),
        source: deployment.source.clone(),
        template_storage: place.template_storage.to_owned(),
        disk_storage: place.disk_storage.to_owned(),
        resources: deployment.resources,
        network: wanted.network.clone(),
        environment: wanted.sealed.environment.clone(),
        unprivileged: deployment.unprivileged,
        features: deployment.features.clone(),
        health: deployment.health.clone(),
        agreed: false,
    }
}

fn requested(
    wanted: &Wanted,
    guest: GuestRef,
    holdings: Holdings,
    operation: OperationId,
) -> Requested {
    let (app, deployment) = (&wanted.app, &wanted.deployment);
    Requested {
        owner: wanted.owner,
        operation,
        catalog_id: app.id.clone(),
        catalog_version: app.version.clone(),
        name: app.name.clone(),
        guest,
        holdings,
        resources: deployment.resources,
        environment: wanted.sealed.environment.clone(),
        config: wanted.sealed.config.clone(),
        endpoint: deployment.endpoint.clone(),
        health: deployment.health.clone(),
        icon: app.icon.clone().unwrap_or_default(),
        category: app.category.clone(),
        description: app.description.clone(),
        origin: Origin::Deployed,
    }
}

fn resolve(
    app: &CatalogApp,
    request: &DeployRequest,
    defaults: Resources,
) -> Result<Deployment, Vec<FieldError>> {
    let asked = Request { config: &request.config, environment: &request.environment, defaults };
    let mut random = |bytes: &mut [u8]| rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
    app.resolve(asked, &mut random).map_err(|errors| {
        let field = |pointer: &str| pointer.trim_start_matches('/').to_owned();
        errors
            .into_iter()
            .map(|e| FieldError { field: field(&e.pointer), code: e.code, detail: e.detail })
            .collect()
    })
}

pub(super) fn note<T>(
    wrong: &mut Vec<FieldError>,
    field: &str,
    parsed: Result<T, proximity_domain::ValueError>,
) -> Option<T> {
    parsed
        .map_err(|error| {
            let field = field.to_owned();
            wrong.push(FieldError { field, code: error.code, detail: error.message });
        })
        .ok()
}

/// Whether the caller chose this thing, so that losing it is an answer and not another pick.
fn is_chosen(key: &LeaseKey) -> bool {
    matches!(key, LeaseKey::Hostname(_))
}

pub(super) async fn take(unit: &mut Unit<'_>, key: &LeaseKey, holder: Holder) -> Result<(), Lost> {
    match unit.apply::<Lease>(&key.to_string(), lease::Command::Acquire { holder }).await {
        Ok(_) => Ok(()),
        Err(Refused::Judged(why)) if is_chosen(key) => {
            Err(crate::leases::refused(key, &why).into())
        }
        Err(Refused::Judged(_)) => Err(Lost::Pick),
        Err(Refused::Failed(error)) => Err(error.into()),
    }
}

pub(super) fn judged<E: Into<Error>>(applied: Result<usize, Refused<E>>) -> Result<(), Lost> {
    applied.map(drop).map_err(|refused| refused.or_else(Into::into).into())
}

/// Tells a lost pick from a decision that has to be made anew.
pub(super) fn lost(error: AppendError) -> Lost {
    match &error {
        AppendError::Conflict { aggregate_type, aggregate_id, .. } if aggregate_type == "lease" => {
            match aggregate_id.parse::<LeaseKey>() {
                Ok(key) if !is_chosen(&key) => Lost::Pick,
                _ => Lost::Stale(error.into()),
            }
        }
        _ => Lost::Stale(error.into()),
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::Stale(Tried::Failed(error))
    }
}
