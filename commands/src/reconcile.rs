//! The reconciler: reads what Proxmox has, compares it with the log, and records what was done by hand.
//!
//! A look only ever says what it has seen. What was decided from it is appended at the sequence that
//! was read *before* Proxmox was asked, so that a conflict drops it; while an operation runs on an
//! application it means nothing. Nothing is concluded from a host that cannot be read, from an empty
//! list, or from one that may be filtered. The one thing it has removed is a container that this very
//! log says was undone or deleted, while its number is still kept for that: everything else that
//! carries our marker is reported, and strangers are never touched. After a restoration from a backup it
//! removes nothing before an administrator has confirmed it. What it changes beside that is the protection
//! of an application's own container, where an operation took it off and was given up: it is set again,
//! once.

mod known;
mod left;
mod look;
mod places;
mod protect;
mod snapshots;
mod strays;
mod users;

use std::sync::Arc;
use std::time::Duration;

use proximity_domain::host::{Command, Discrepancy, Host};
use proximity_domain::{ApplicationId, HostId, OperationId};
use proximity_eventstore::{Position, Store};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::known::Known;
use self::left::Left;
use self::look::Look;
use self::places::Places;
use crate::actor::{Actor, Metadata};
use crate::clock::Clock;
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::marker::Markers;
use crate::policy::Admin;
use crate::ports::Hypervisors;
use crate::restored::Restoration;

/// Names the claim by which one of several servers looks at all hosts.
const CLAIM: &str = "reconciler";

/// Compares hosts with the log.
pub struct Reconciler {
    store: Store,
    restoration: Restoration,
    hypervisors: Arc<dyn Hypervisors>,
    markers: Markers,
    clock: Arc<dyn Clock>,
    /// How long the removal of a leftover may take.
    patience: Duration,
    /// What the log said when it was last read; one look at a time.
    known: Mutex<Known>,
    /// Operations that may have left volumes, as far as the log was read.
    left: Mutex<Left>,
}

/// What one look at a host came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Applications of this host that were compared.
    pub compared: usize,
    /// Those that were found otherwise than recorded.
    pub changed: Vec<ApplicationId>,
    /// The operations that remove what was left over.
    pub removals: Vec<OperationId>,
    /// What a person has to look at.
    pub discrepancies: Vec<Discrepancy>,
    /// Why absence was not concluded from this look; `None` when it could be.
    pub inconclusive: Option<&'static str>,
    /// Up to here the log holds all of it.
    pub position: Option<Position>,
}

impl Reconciler {
    pub fn new(
        store: Store,
        hypervisors: Arc<dyn Hypervisors>,
        markers: Markers,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> Self {
        let restoration = Restoration::new(store.clone());
        let (known, left) = (Mutex::default(), Mutex::default());
        Self { store, restoration, hypervisors, markers, clock, patience, known, left }
    }

    /// Looks at all hosts every `period` until it is stopped; of several servers one does.
    pub async fn run(&self, runner: Uuid, period: Duration, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            match self.store.claim(CLAIM, runner, period.saturating_mul(2)).await {
                Ok(Some(_)) => self.round(&stopping).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the reconciler cannot take its claim"),
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// One look at every active host; what fails is logged and looked at again next time.
    async fn round(&self, stopping: &CancellationToken) {
        let mut known = self.known.lock().await;
        if let Err(error) = known.read(&self.store).await {
            tracing::warn!(%error, "the log cannot be read, so no host is compared with it");
            return;
        }
        let active = |host: &Host| {
            host.registration().is_some_and(|host| host.is_active && host.suspended.is_none())
        };
        let hosts: Vec<HostId> =
            known.hosts.iter().filter(|(_, host)| active(host)).map(|(id, _)| *id).collect();
        drop(known);
        for host in hosts {
            if stopping.is_cancelled() {
                return;
            }
            if let Err(error) = self.reconcile(host, &Actor::system(CLAIM)).await {
                tracing::warn!(%host, %error, "a host was not compared with the log");
            }
        }
    }

    /// One look at a host: what differs is recorded, leftovers are removed, the rest is reported.
    pub async fn reconcile(&self, host: HostId, actor: &Actor) -> Result<Findings, Error> {
        let mut known = self.known.lock().await;
        known.read(&self.store).await?;
        let registered = known.hosts.get(&host).and_then(Host::registration);
        let registered = registered.ok_or(Error::NotFound)?;
        let (cluster, before) = (registered.cluster.clone(), registered.discrepancies.clone());
        let hypervisor = self.hypervisors.of(host).await?;
        let mut look = Look::take(&*hypervisor, host, cluster).await?;
        look.only = !self.restoration.may_act().await;
        // Before anything else is stored: what it rests on is the log as it was read.
        let mut findings = Findings { inconclusive: look.inconclusive, ..Findings::default() };
        self.protect(&look, &mut known, actor, &mut findings).await;
        self.compare(&look, &known, actor, &mut findings).await?;
        self.sort_strays(&look, &known, actor, &mut findings).await?;
        let mut left = self.left.lock().await;
        left.read(&self.store).await?;
        let mut places = Places::default();
        findings.discrepancies.extend(left.find(&look, &mut places, &before).await);
        let snapshots = left.find_snapshots(&look, &mut places, &before).await;
        findings.discrepancies.extend(snapshots);
        drop(left);
        findings.discrepancies.sort();
        let report = findings.discrepancies.clone();
        let stored = self.report(host, actor.metadata("host.reconcile"), report).await?;
        findings.position = findings.position.max(stored);
        Ok(findings)
    }

    /// What the last looks at a host left for a person.
    pub async fn discrepancies(
        &self,
        _admin: &Admin,
        host: HostId,
    ) -> Result<Vec<Discrepancy>, Error> {
        let (state, _) = load::<Host>(&self.store, &host.to_string()).await?;
        Ok(state.registration().ok_or(Error::NotFound)?.discrepancies.clone())
    }

    /// Stores what a person has to look at, if it differs from the last time.
    async fn report(
        &self,
        host: HostId,
        meta: Metadata,
        discrepancies: Vec<Discrepancy>,
    ) -> Result<Option<Position>, Error> {
        crate::retry::retrying!(async {
            let mut unit = Unit::new(&self.store, meta.clone());
            let command = Command::ReportDiscrepancies { discrepancies: discrepancies.clone() };
            let applied = unit.apply::<Host>(&host.to_string(), command).await;
            let events = applied.map_err(|refused| refused.or_else(|_| Error::NotFound))?;
            if events == 0 {
                return Ok::<_, Tried>(None);
            }
            Ok(Some(unit.commit().await?.position))
        })
    }

    /// Stores a decision that rests on what was seen; a conflict drops it until the next look.
    async fn store(&self, unit: Unit<'_>, findings: &mut Findings) -> Result<bool, Error> {
        match unit.commit().await.map_err(Tried::from) {
            Ok(committed) => {
                findings.position = findings.position.max(Some(committed.position));
                Ok(true)
            }
            Err(Tried::Stale(_)) => Ok(false),
            Err(Tried::Failed(error)) => Err(error),
        }
    }
}
