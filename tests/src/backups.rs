//! Backups on the rig: appended as the commands append them, and checked against the cluster.

use proximity_commands::Actor;
use proximity_commands::dispatch::{Unit, load};
use proximity_domain::application::{Application, Command as App};
use proximity_domain::backup::{Backup, Command, Compression, Mode, Outcome, Requested};
use proximity_domain::lease::{Command as LeaseCommand, Holder, Lease};
use proximity_domain::plan::{
    BackupDeletePlan, BackupPlan, GuestRef, Health, Kind, Plan, Probe, RestorePlan, RestoreWay,
};
use proximity_domain::{ApplicationId, BackupId, OperationId, UserId};
use uuid::Uuid;

use crate::rig::Rig;

/// The one backup of a rig.
pub const BACKUP: BackupId = BackupId(1);

/// Stores this guest, running, on the storage that takes backups.
pub fn backup_plan(guest: GuestRef) -> BackupPlan {
    BackupPlan {
        guest,
        backup: BACKUP,
        storage: "local".to_owned(),
        mode: Mode::Snapshot,
        compression: Compression::Zstd,
        was_running: true,
    }
}

/// Removes the backup of this guest.
pub fn backup_deletion(guest: GuestRef) -> BackupDeletePlan {
    BackupDeletePlan {
        guest,
        backup: BACKUP,
        storage: "local".to_owned(),
        archive: None,
        made_by: OperationId(Uuid::nil()),
        was_running: true,
        detached: false,
        nothing: false,
    }
}

/// The number that a backup of this guest, running, is restored under.
pub const RESTORED: i64 = 105;

/// Restores a backup of this guest, which runs.
pub fn restore_plan(original: GuestRef, way: RestoreWay) -> RestorePlan {
    let vmid = match way {
        RestoreWay::Swap => RESTORED.try_into().unwrap(),
        RestoreWay::InPlace => original.vmid,
    };
    RestorePlan {
        agreed: false,
        lose_volumes: false,
        guest: GuestRef { vmid, ..original.clone() },
        original,
        lost: None,
        way,
        backup: BACKUP,
        storage: "local".to_owned(),
        archive: String::new(),
        disk_storage: "local-btrfs".to_owned(),
        was_running: true,
        health: Health { probe: Probe::Running, within_s: 1 },
    }
}

impl Rig {
    /// Appends what the restore of the backup appends; `change` makes its plan another one.
    pub async fn restore(
        &self,
        application: &ApplicationId,
        way: RestoreWay,
        change: impl FnOnce(&mut RestorePlan),
    ) -> OperationId {
        let (mut unit, operation, guest) = self.reserve(application, Kind::Restore).await;
        let state = unit.load::<Backup>(&BACKUP.to_string()).await.unwrap();
        let kept = state.kept().expect("there is a backup").clone();
        let Outcome::Completed(archive) = kept.outcome else { panic!("it has an archive") };
        let begin = Command::Begin { operation, kind: Kind::Restore };
        unit.apply::<Backup>(&BACKUP.to_string(), begin).await.unwrap();
        let mut plan = restore_plan(guest, way);
        plan.archive = archive.volume;
        change(&mut plan);
        if way == RestoreWay::Swap {
            let holder = Holder::Application(application.clone());
            let key = plan.guest.vmid_lease().to_string();
            unit.apply::<Lease>(&key, LeaseCommand::Acquire { holder }).await.unwrap();
        }
        self.plan(&mut unit, application, operation, Plan::Restore(Box::new(plan))).await;
        unit.commit().await.unwrap();
        operation
    }

    /// Appends what the request for a backup appends.
    pub async fn back_up(&self, application: &ApplicationId) -> OperationId {
        self.back_up_as(application, BACKUP).await
    }

    /// The same for a backup of another number.
    pub async fn back_up_as(&self, application: &ApplicationId, backup: BackupId) -> OperationId {
        let (mut unit, operation, guest) = self.reserve(application, Kind::Backup).await;
        let plan = BackupPlan { backup, ..backup_plan(guest.clone()) };
        let requested = Requested {
            application: application.clone(),
            owner: UserId(1),
            operation,
            guest,
            storage: plan.storage.clone(),
            mode: plan.mode,
            compression: plan.compression,
            scheduled: None,
        };
        let request = Command::Request(Box::new(requested));
        unit.apply::<Backup>(&backup.to_string(), request).await.unwrap();
        self.plan(&mut unit, application, operation, Plan::Backup(plan)).await;
        unit.commit().await.unwrap();
        operation
    }

    /// Appends what the removal of the backup appends.
    pub async fn delete_backup(&self, application: &ApplicationId) -> OperationId {
        let (mut unit, operation, guest) = self.reserve(application, Kind::BackupDelete).await;
        let state = unit.load::<Backup>(&BACKUP.to_string()).await.unwrap();
        let kept = state.kept().expect("there is a backup").clone();
        let Outcome::Completed(archive) = kept.outcome else { panic!("it has an archive") };
        let begin = Command::Begin { operation, kind: Kind::BackupDelete };
        unit.apply::<Backup>(&BACKUP.to_string(), begin).await.unwrap();
        let plan = BackupDeletePlan {
            archive: Some(archive.volume),
            made_by: kept.requested.operation,
            ..backup_deletion(guest)
        };
        self.plan(&mut unit, application, operation, Plan::BackupDelete(plan)).await;
        unit.commit().await.unwrap();
        operation
    }

    async fn reserve(
        &self,
        application: &ApplicationId,
        kind: Kind,
    ) -> (Unit<'_>, OperationId, GuestRef) {
        let operation = OperationId(Uuid::new_v4());
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.backup"));
        let state = unit.load::<Application>(application.as_str()).await.unwrap();
        let guest = state.live().expect("the application is live").requested.guest.clone();
        let began = App::BeginOperation { operation, kind };
        assert_eq!(unit.apply::<Application>(application.as_str(), began).await.unwrap(), 1);
        (unit, operation, guest)
    }
}

/// What is wrong with the record of the backup after an operation that came to this end.
/// `made`: it was the one that makes it.
pub async fn wrong(rig: &Rig, made: bool, end: &str) -> Vec<String> {
    let (backup, _) = load::<Backup>(&rig.store, &BACKUP.to_string()).await.unwrap();
    let ledger = rig.simulator.ledger();
    let well = match (&backup, made, end) {
        (Backup::Kept(kept), true, "done") | (Backup::Kept(kept), false, "undone") => {
            let there = ledger.backups.first();
            kept.current.is_none()
                && matches!(
                    (&kept.outcome, there),
                    (Outcome::Completed(archive), Some(there))
                        if archive.volume == there.volid && archive.size == Some(there.size)
                )
        }
        (Backup::Kept(kept), true, "undone") => {
            kept.current.is_none() && kept.outcome == Outcome::Failed { absent: true }
        }
        (Backup::Deleted, false, "done") => true,
        _ => false,
    };
    if well { Vec::new() } else { vec![format!("the record of the backup is wrong: {backup:?}")] }
}
