//! Looks at every registered host once a minute: nodes that changed are recorded, figures are kept.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use proximity_domain::host::{Command, Host, ObservedNode};
use proximity_domain::{HostId, Vmid};
use proximity_eventstore::{Guard, Position, SideWrite, Store, Value, tables};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Metadata};
use crate::clock::{Clock, Micros, SECOND};
use crate::directory::HostDirectory;
use crate::dispatch::{Refused, Retries, Unit, load};
use crate::error::Error;
use crate::ports::{Guest, Hypervisor, HypervisorError, Hypervisors as _, Node};
use crate::rows::text;

/// Figures older than this are no longer those of now: two looks and a half.
const FRESH: Micros = 150 * SECOND;

/// The last figures of a host's nodes and guests.
#[derive(Debug, Clone, Default)]
pub struct NodeFigures {
    pub nodes: Vec<Node>,
    /// By number, those that its node could tell of.
    pub guests: HashMap<Vmid, Guest>,
    /// µs since 1970.
    pub seen_at: i64,
}

/// Watches all hosts.
pub struct NodeWatch {
    store: Store,
    directory: Arc<HostDirectory>,
    clock: Arc<dyn Clock>,
    figures: RwLock<HashMap<HostId, NodeFigures>>,
    /// When each host answered last, µs since 1970; kept when it does not any more.
    answered: RwLock<HashMap<HostId, Micros>>,
}

impl NodeWatch {
    pub fn new(store: Store, directory: Arc<HostDirectory>, clock: Arc<dyn Clock>) -> Self {
        Self { store, directory, clock, figures: RwLock::default(), answered: RwLock::default() }
    }

    /// The last figures of a host; empty before the first look.
    pub fn figures(&self, host: HostId) -> NodeFigures {
        let figures = self.figures.read().unwrap_or_else(PoisonError::into_inner);
        figures.get(&host).cloned().unwrap_or_default()
    }

    /// When a host answered this server last, µs since 1970; `None` when it has not yet.
    pub fn answered_at(&self, host: HostId) -> Option<Micros> {
        self.answered.read().unwrap_or_else(PoisonError::into_inner).get(&host).copied()
    }

    /// What a container of a host used a moment ago; `None` when that is not known: its host or its
    /// node did not answer, or was not looked at since it was made.
    pub fn guest(&self, host: HostId, vmid: Vmid) -> Option<Guest> {
        let figures = self.figures.read().unwrap_or_else(PoisonError::into_inner);
        let figures = figures.get(&host)?;
        let is_fresh = self.clock.now() - figures.seen_at <= FRESH;
        let guest = figures.guests.get(&vmid).filter(|guest| guest.is_container)?;
        (is_fresh && guest.running.is_some()).then(|| guest.clone())
    }

    /// Looks at all hosts every `period` until it is stopped.
    pub async fn run(&self, period: Duration, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            self.look().await;
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// One look at every active host; what fails is logged and looked at again next time.
    pub async fn look(&self) {
        let rows = match self.directory.rows(None).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(?error, "the hosts cannot be listed");
                return;
            }
        };
        for row in rows.into_iter().filter(|row| row.usable) {
            if let Err(error) = self.look_at(row.host).await {
                tracing::warn!(host = %row.host, %error, "a host cannot be looked at");
                // What it said before is not how it stands now.
                self.figures.write().unwrap_or_else(PoisonError::into_inner).remove(&row.host);
            }
        }
    }

    async fn look_at(&self, host: HostId) -> Result<(), Error> {
        let hypervisor = self.directory.of(host).await?;
        let identity = hypervisor.identity().await?;
        let (state, _) = load::<Host>(&self.store, &host.to_string()).await?;
        let Some(registered) = state.registration() else { return Ok(()) };
        if registered.cluster != identity.cluster {
            let reason =
                format!("it answers as {}, not as {}", identity.cluster, registered.cluster);
            return self.suspend(host, reason).await;
        }
        let nodes = hypervisor.nodes().await?;
        let version = hypervisor.version().await?.text;
        let observed = nodes.iter().map(|node| observed(node, &version)).collect();
        let guests = hypervisor.guests().await?;
        let guests = guests.into_iter().map(|guest| (guest.vmid, guest)).collect();
        let now = self.clock.now();
        self.answered.write().unwrap_or_else(PoisonError::into_inner).insert(host, now);
        let figures = NodeFigures { nodes, guests, seen_at: now };
        self.figures.write().unwrap_or_else(PoisonError::into_inner).insert(host, figures);
        let meta = Actor::system("node-watch").metadata("host.observe_nodes");
        record(&self.store, meta, host, observed).await.map(drop)
    }

    async fn suspend(&self, host: HostId, reason: String) -> Result<(), Error> {
        tracing::error!(%host, reason, "a host is suspended");
        let mut unit = Unit::new(&self.store, Actor::system("node-watch").metadata("host.suspend"));
        let command = Command::Suspend { reason: reason.clone() };
        let applied = unit.apply::<Host>(&host.to_string(), command).await;
        applied.map_err(|refused| refused.or_else(|_| Error::NotFound))?;
        unit.write(SideWrite::Update {
            table: &tables::HOST_CONNECTIONS,
            set: vec![
                ("suspended", text(reason)),
                ("updated_at", Value::Integer(self.clock.now())),
            ],
            filter: vec![("host_id", text(host))],
            guard: Guard::None,
        });
        unit.commit().await?;
        Ok(())
    }
}

/// The nodes as the log keeps them.
pub(super) async fn observe(
    hypervisor: &dyn Hypervisor,
) -> Result<Vec<ObservedNode>, HypervisorError> {
    let version = hypervisor.version().await?.text;
    Ok(hypervisor.nodes().await?.iter().map(|node| observed(node, &version)).collect())
}

fn observed(node: &Node, version: &str) -> ObservedNode {
    ObservedNode {
        name: node.name.clone(),
        online: node.online,
        version: node.online.then(|| version.to_owned()),
        cores: node.cores,
        memory_total: node.memory_total,
        disk_total: node.disk_total,
    }
}

/// Stores them if they differ from the last time.
pub(super) async fn record(
    store: &Store,
    meta: Metadata,
    host: HostId,
    nodes: Vec<ObservedNode>,
) -> Result<Option<Position>, Error> {
    let mut retries = Retries::default();
    loop {
        let mut unit = Unit::new(store, meta.clone());
        let command = Command::ObserveNodes { nodes: nodes.clone() };
        match unit.apply::<Host>(&host.to_string(), command).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Refused::Judged(_)) => return Err(Error::NotFound),
            Err(Refused::Failed(error)) => return Err(error),
        }
        match unit.commit().await {
            Ok(committed) => return Ok(Some(committed.position)),
            Err(error) => retries.again(error.into()).await?,
        }
    }
}
