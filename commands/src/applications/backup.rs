//! Backups: make one of an application, remove one. Either is an operation like any other.

use proximity_domain::application::{Application, Command as App, Live};
use proximity_domain::backup::{
    Backup, Command, Compression, Error as Refusal, Kept, Mode, Outcome, Requested, Scheduled,
};
use proximity_domain::host::Host;
use proximity_domain::lease::{Holder, Lease};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{BackupDeletePlan, BackupPlan, GuestRef, Kind, Plan};
use proximity_domain::{ApplicationId, BackupId, HostId, LeaseKey, NodeName, OperationId, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Applications;
use super::restore::reaching;
use crate::dispatch::{Refused, Tried, Unit};
use crate::error::Error;
use crate::host_usage;
use crate::numbers;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Owned, give};
use crate::retry::retrying;
use crate::saga;

/// The counter of backups' numbers.
const NUMBERS: &str = "backup.last";

/// How a backup is to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupWish {
    pub mode: Mode,
    pub compression: Compression,
}

/// What was accepted; an operation carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupAccepted {
    pub backup: BackupId,
    pub application: ApplicationId,
    pub operation: OperationId,
}

impl Applications {
    /// Accepts a backup of an application; its number is new.
    pub async fn back_up(
        &self,
        application: &Owned<ApplicationId>,
        wish: BackupWish,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Error> {
        retrying!(async {
            match once::kept(&self.store, application.actor(), key).await? {
                Some(first) => Ok(first),
                None => self.attempt_backup(application, wish, key).await,
            }
        })
    }

    async fn attempt_backup(
        &self,
        owned: &Owned<ApplicationId>,
        wish: BackupWish,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Tried> {
        let actor = owned.actor();
        let mut unit = Unit::new(&self.store, actor.metadata("backup.create"));
        let accepted = self.begin_backup(&mut unit, owned.id(), wish, None).await?;
        unit.idempotent(once::keep(actor, key, &accepted)?);
        let committed = unit.commit().await.map_err(numbers::tried)?;
        Ok(once::done(committed, accepted)?)
    }

    /// Adds a backup of an application to a unit of work: the record, the operation, the reservation.
    pub(crate) async fn begin_backup(
        &self,
        unit: &mut Unit<'_>,
        application: &ApplicationId,
        wish: BackupWish,
        scheduled: Option<Scheduled>,
    ) -> Result<BackupAccepted, Tried> {
        let operation = OperationId(Uuid::now_v7());
        unit.correlate(operation);
        let state = unit.load::<Application>(application.as_str()).await?;
        begin(unit, application, operation, Kind::Backup).await?;
        // Whatever is not live was refused above.
        let live = state.live().ok_or(Error::NotFound)?;
        let owner = live.requested.owner;
        unit.owned_by(owner);
        let guest = live.requested.guest.clone();
        let storage = self.backup_storage(&guest).await?;
        let number = BackupId(numbers::next(&self.store, unit, NUMBERS).await?);
        let requested = Requested {
            application: application.clone(),
            owner,
            operation,
            guest: guest.clone(),
            storage: storage.clone(),
            mode: wish.mode,
            compression: wish.compression,
            scheduled,
        };
        let request = Command::Request(Box::new(requested));
        match unit.apply::<Backup>(&number.to_string(), request).await {
            Ok(_) => {}
            Err(Refused::Judged(Refusal::AlreadyExists)) => return Err(numbers::taken()),
            Err(refused) => return Err(refused.or_else(Error::from).into()),
        }
        let plan = Plan::Backup(BackupPlan {
            guest,
            backup: number,
            storage,
            mode: wish.mode,
            compression: wish.compression,
            was_running: live.running,
        });
        self.plan(unit, application, operation, owner, plan).await?;
        unit.write(give(&number, owner));
        Ok(BackupAccepted { backup: number, application: application.clone(), operation })
    }

    /// Accepts the removal of a backup; of an application that is gone, too.
    pub async fn delete_backup(
        &self,
        backup: &Owned<BackupId>,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Error> {
        retrying!(async {
            match once::kept(&self.store, backup.actor(), key).await? {
                Some(first) => Ok(first),
                None => self.attempt_backup_deletion(backup, key).await,
            }
        })
    }

    async fn attempt_backup_deletion(
        &self,
        owned: &Owned<BackupId>,
        key: Option<&OnceKey>,
    ) -> Result<Done<BackupAccepted>, Tried> {
        let actor = owned.actor();
        let mut unit = Unit::new(&self.store, actor.metadata("backup.delete"));
        let accepted = self.begin_backup_deletion(&mut unit, *owned.id()).await?;
        unit.idempotent(once::keep(actor, key, &accepted)?);
        let committed = unit.commit().await?;
        Ok(once::done(committed, accepted)?)
    }

    /// Adds the removal of a backup to a unit of work.
    pub(crate) async fn begin_backup_deletion(
        &self,
        unit: &mut Unit<'_>,
        number: BackupId,
    ) -> Result<BackupAccepted, Error> {
        let operation = OperationId(Uuid::now_v7());
        unit.correlate(operation);
        let state = unit.load::<Backup>(&number.to_string()).await?;
        let kept = state.kept().ok_or(Error::NotFound)?.clone();
        let application = kept.requested.application.clone();
        let owner = kept.requested.owner;
        unit.owned_by(owner);
        let parent = unit.load::<Application>(application.as_str()).await?;
        let detached = matches!(parent, Application::Removed | Application::Absent);
        if !detached {
            begin(unit, &application, operation, Kind::BackupDelete).await?;
        }
        let begin = Command::Begin { operation, kind: Kind::BackupDelete };
        unit.apply::<Backup>(&number.to_string(), begin)
            .await
            .map_err(|refused| refused.or_else(Error::from))?;
        let mut deletion = deletion(number, kept, parent.live(), detached);
        if parent.live().is_none() && !deletion.nothing {
            // Nothing else keeps the host of what an application has left.
            let host = host_of(unit, &deletion.guest).await?;
            deletion.guest.host = host;
            host_usage::begin(unit, operation, host);
        }
        if !deletion.nothing {
            let present = parent.live().map(|live| &live.requested.guest.node);
            deletion.guest = self.reached(deletion.guest, &deletion.storage, present).await?;
        }
        let plan = Plan::BackupDelete(deletion);
        self.plan(unit, &application, operation, owner, plan).await?;
        Ok(BackupAccepted { backup: number, application, operation })
    }

    /// Where the archive of a guest is listed and removed: `present` is the application's node now.
    pub(crate) async fn reached(
        &self,
        guest: GuestRef,
        storage: &str,
        present: Option<&NodeName>,
    ) -> Result<GuestRef, Error> {
        let seen = self.clusters.seen().await?;
        let Some(cluster) = seen.iter().find(|cluster| cluster.host == guest.host) else {
            return Ok(guest);
        };
        let present = present.unwrap_or(&guest.node).clone();
        Ok(reaching(cluster, guest, storage, &present))
    }

    /// The operation's own stream, and whose it is.
    async fn plan(
        &self,
        unit: &mut Unit<'_>,
        application: &ApplicationId,
        operation: OperationId,
        owner: UserId,
        plan: Plan,
    ) -> Result<(), Error> {
        let limit = match plan.kind() {
            Kind::Backup => self.limits.disks,
            _ => self.limits.other,
        };
        let planned = Op::Plan {
            application: application.clone(),
            owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.deadline(limit),
        };
        unit.apply::<Operation>(&operation.to_string(), planned)
            .await
            .map_err(|refused| refused.or_else(Error::from))?;
        unit.write(give(&operation, owner));
        Ok(())
    }

    /// The storage of the guest's node that takes backups and has the most room.
    async fn backup_storage(&self, guest: &GuestRef) -> Result<String, Error> {
        let seen = self.clusters.seen().await?;
        let node = seen
            .iter()
            .filter(|cluster| cluster.host == guest.host)
            .flat_map(|cluster| &cluster.nodes)
            .find(|node| node.name == guest.node && node.online);
        let Some(node) = node else {
            return Err(Error::Unavailable {
                code: "nodes.none_online",
                detail: format!("node {} is not online", guest.node),
                retry_after: std::time::Duration::from_secs(30),
            });
        };
        node.storages
            .iter()
            .filter(|storage| storage.active && storage.content.iter().any(|kind| kind == "backup"))
            .max_by_key(|storage| (storage.available, std::cmp::Reverse(&storage.name)))
            .map(|storage| storage.name.clone())
            .ok_or_else(|| {
                let detail = format!("no storage of node {} takes backups", guest.node);
                Error::conflict("backup.no_storage", detail)
            })
    }
}

/// The host by which the cluster of a guest is reached: the guest's own or, when that was removed, the
/// one that was registered for the same cluster since.
async fn host_of(unit: &mut Unit<'_>, guest: &GuestRef) -> Result<HostId, Error> {
    let own = unit.load::<Host>(&guest.host.to_string()).await?;
    if own.registration().is_some() {
        return Ok(guest.host);
    }
    let cluster = unit.load::<Lease>(&LeaseKey::Cluster(guest.cluster.clone()).to_string()).await?;
    if let Some(Holder::Host(host)) = cluster.holder() {
        let other = unit.load::<Host>(&host.to_string()).await?;
        if other.registration().is_some_and(|host| host.is_active && host.suspended.is_none()) {
            return Ok(*host);
        }
    }
    let detail = format!(
        "the host that holds the archive was removed, and no active host is registered for its cluster \
         {}; register it again",
        guest.cluster
    );
    Err(Error::conflict("host.gone", detail))
}

/// Reserves the application: one operation at a time.
async fn begin(
    unit: &mut Unit<'_>,
    application: &ApplicationId,
    operation: OperationId,
    kind: Kind,
) -> Result<(), Error> {
    let command = App::BeginOperation { operation, kind };
    unit.apply::<Application>(application.as_str(), command)
        .await
        .map(drop)
        .map_err(|refused| refused.or_else(Error::from))
}

fn deletion(backup: BackupId, kept: Kept, live: Option<&Live>, detached: bool) -> BackupDeletePlan {
    let (archive, nothing) = match kept.outcome {
        Outcome::Completed(archive) => (Some(archive.volume), false),
        Outcome::Failed { absent } => (None, absent),
        Outcome::Open => (None, false),
    };
    BackupDeletePlan {
        guest: kept.requested.guest,
        backup,
        storage: kept.requested.storage,
        archive,
        made_by: kept.requested.operation,
        was_running: live.is_some_and(|live| live.running),
        detached,
        nothing,
    }
}

/// The backup's side of an operation that is given up.
pub(crate) async fn give_up(
    unit: &mut Unit<'_>,
    operation: OperationId,
    plan: &Plan,
    problem: &str,
) -> Result<(), Error> {
    let problem = problem.to_owned();
    let (backup, command) = match plan {
        Plan::Backup(plan) => (plan.backup, Command::Fail { operation, problem, absent: false }),
        Plan::BackupDelete(plan) => {
            (plan.backup, Command::End { operation, problem: Some(problem) })
        }
        Plan::Restore(plan) => (plan.backup, Command::End { operation, problem: Some(problem) }),
        _ => return Ok(()),
    };
    let judged = unit.apply::<Backup>(&backup.to_string(), command).await;
    judged.map(drop).map_err(|refused| refused.or_else(Error::from))
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound => return Self::NotFound,
            Refusal::AlreadyExists => "backup.exists",
            Refusal::Busy { .. } => "backup.busy",
            Refusal::OnlyDeletable => "backup.only_deletable",
            Refusal::NotThisOperation => "operation.not_current",
        };
        Self::conflict(code, refusal.to_string())
    }
}
