//! Operations end to end, on the real store, client and engine, against the simulator.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::saga::SagaConfig;
use proximity_domain::application::Application;
use proximity_domain::lease::Lease;
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{Health, Kind, Probe, RestoreWay, Source};
use proximity_domain::{ApplicationId, BackupId, OperationId, UserId};
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::checker;
use proximity_tests::judged;
use proximity_tests::rig::{HOST, Rig, quick};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_deployed_stopped_started_restarted_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let baseline = rig.simulator.ledger();
    let runner = rig.run(None);
    let (application, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let ledger = rig.simulator.ledger();
    let guest = ledger.container(104).expect("the container exists");
    assert_eq!((guest.status.as_str(), guest.name.as_str()), ("running", "web"));
    assert!(guest.config["description"].contains(application.as_str()));
    assert_eq!(guest.config["protection"], "1");
    for (kind, status) in
        [(Kind::Stop, "stopped"), (Kind::Start, "running"), (Kind::Restart, "running")]
    {
        let operation = rig.begin(&application, kind).await;
        assert_eq!(rig.ended(operation, SOON).await, "done", "{kind:?}");
        assert_eq!(rig.simulator.ledger().container(104).unwrap().status, status, "{kind:?}");
    }
    let operation = rig.begin(&application, Kind::Delete).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.simulator.ledger().leftovers(&baseline), Vec::<String>::new());
    let events = rig.events().await;
    let found = checker::check(&events, &rig.guests());
    assert_eq!(judged::accusations_but_of_names(events).await, Vec::<String>::new());
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    assert!(found.held.is_empty() && found.live.is_empty(), "{found:#?}");
    runner.stop().await;
}

/// The clock alone ends it: more tries than anybody waits for are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_past_its_deadline_is_taken_back_unless_its_pivot_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let config = SagaConfig { act_attempts: 100_000, ..quick() };
    let mut rig = Rig::new(folder.path(), config).await;
    let runner = rig.run(None);
    let before = rig.simulator.ledger();
    rig.patience = Duration::from_millis(300);
    let refused = || Fault::Status { status: 595, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.start", refused())).unwrap();
    let (_, operation) = rig.deploy("late", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "undone");
    assert_eq!(rig.simulator.ledger().leftovers(&before), Vec::<String>::new());
    let why = rig.events().await.into_iter().find(|e| e.event_type == "operation.undone").unwrap();
    assert!(why.payload.contains("its time is over"), "{}", why.payload);

    rig.simulator.clear_faults();
    rig.patience = Duration::from_secs(60);
    let (web, operation) = rig.deploy("web", 105, 8101).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    rig.patience = Duration::from_millis(300);
    rig.simulator.faults().add(FaultRule::forever("container.destroy", refused())).unwrap();
    let deletion = rig.begin(&web, Kind::Delete).await;
    // Well past the deadline it still goes forward, and ends so.
    let mut head = rig.store.watch_head();
    let deadline = rig.env.clock.now() + 600_000;
    while rig.env.clock.now() < deadline {
        tokio::time::timeout(SOON, head.changed()).await.expect("it is tried on").unwrap();
    }
    rig.simulator.clear_faults();
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    assert_eq!(rig.simulator.ledger().leftovers(&before), Vec::<String>::new());
    runner.stop().await;
}

/// An application that runs as container 104, and a backup of it.
async fn stored(rig: &Rig) -> ApplicationId {
    let (app, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let backup = rig.back_up(&app).await;
    assert_eq!(rig.ended(backup, SOON).await, "done");
    app
}

/// Whoever restored an archive by its number would otherwise meet another guest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_not_leased_again_while_archives_of_it_exist() {
    let folder = tempfile::tempdir().unwrap();
    let config = SagaConfig { quarantine: Duration::ZERO, ..quick() };
    let rig = Rig::new(folder.path(), config).await;
    rig.register().await;
    let runner = rig.run(None);
    let app = stored(&rig).await;
    let restore = rig.restore(&app, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    // Another number's quarantine ends at the next look, so that one has been taken since.
    let (other, operation) = rig.deploy("other", 120, 8120).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let deletion = rig.begin(&other, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    rig.until_lease("vmid/lab/120", SOON, |lease| *lease == Lease::Free).await;
    let (kept, _) = load::<Lease>(&rig.store, "vmid/lab/104").await.unwrap();
    assert!(matches!(kept, Lease::Quarantined { .. }), "{kept:?}");
    let removal = rig.delete_backup(&app).await;
    assert_eq!(rig.ended(removal, SOON).await, "done");
    rig.until_lease("vmid/lab/104", SOON, |lease| *lease == Lease::Free).await;
    runner.stop().await;
}

/// The restored container's number was a stranger's by the time it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_number_a_stranger_has_takes_another() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = stored(&rig).await;
    let stranger = Foreign {
        vmid: Some(105),
        image: "debian-12".to_owned(),
        running: true,
        ..Foreign::default()
    };
    rig.simulator.plant_container(stranger).await.unwrap();
    let before = rig.simulator.ledger().container(105).cloned();
    let restore = rig.restore(&app, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    assert_eq!(rig.simulator.ledger().container(105).cloned(), before, "it is not touched");
    let (state, _) = load::<Application>(&rig.store, app.as_str()).await.unwrap();
    let vmid = state.live().unwrap().requested.guest.vmid.get();
    assert!(vmid != 104 && vmid != 105 && rig.simulator.ledger().container(vmid).is_some());
    let (lease, _) = load::<Lease>(&rig.store, "vmid/lab/105").await.unwrap();
    assert_eq!(lease, Lease::Foreign);
    runner.stop().await;
}

/// Proxmox destroys the container before it has read the archive, and all of it when that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_in_place_that_has_lost_the_container_restores_the_archive_anew() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let (app, deployment) = rig.deploy("web", 104, 8_100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    let marked = rig.simulator.ledger().container(104).unwrap().config["description"].clone();
    let noted = format!("ask Ada: she is 100% sure\n{marked}");
    rig.simulator.edit_container(104, "description", Some(&noted)).unwrap();
    let backup = rig.back_up(&app).await;
    assert_eq!(rig.ended(backup, SOON).await, "done");
    let fails = || Fault::TaskFails { text: "tar failed".to_owned(), after_effect: false };
    let is_whole = |operation: OperationId| {
        let ledger = rig.simulator.ledger();
        let guest = ledger.container(104).expect("the container is there");
        let notes = &guest.config["description"];
        assert!(notes.starts_with("ask Ada: she is 100% sure\n"), "{notes}");
        assert!(notes.contains(&operation.to_string()), "{notes}");
        assert_eq!((guest.status.as_str(), ledger.containers.len()), ("running", 1));
        assert_eq!((ledger.disks.len(), ledger.backups.len()), (1, 1));
    };

    rig.simulator.faults().add(FaultRule::once("container.create", fails())).unwrap();
    let restore = rig.restore(&app, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    is_whole(restore);

    // It keeps failing, and a stranger takes the number meanwhile.
    rig.simulator.faults().add(FaultRule::forever("container.create", fails())).unwrap();
    let restore = rig.restore(&app, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    assert!(rig.simulator.ledger().container(104).is_none());
    rig.simulator.clear_faults();
    let stranger = Foreign { vmid: Some(104), running: true, ..Foreign::default() };
    rig.simulator.plant_container(stranger).await.unwrap();
    let before = rig.simulator.ledger();
    let resume = async || {
        let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("operation.resume"));
        let resume = Op::Resume { by: UserId(1), note: "mended".to_owned() };
        unit.apply::<Operation>(&restore.to_string(), resume).await.unwrap();
        unit.commit().await.unwrap();
        rig.ended(restore, SOON).await
    };
    assert_eq!(resume().await, "stuck");
    assert_eq!(rig.simulator.ledger(), before, "a stranger's container is not touched");
    rig.simulator.remove_container(104).await.unwrap();
    assert_eq!(resume().await, "done");
    is_whole(restore);
    runner.stop().await;
}

/// A volume that the container got after the restore was asked for is in no backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_destroys_no_volume_that_came_while_it_went_on() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = stored(&rig).await;
    let said = async |operation: OperationId, event: &str| {
        let id = operation.to_string();
        let events = rig.events().await;
        let found = events.iter().rev().find(|e| e.event_type == event && e.aggregate_id == id);
        found.expect("it ended so").payload.clone()
    };
    let volumes =
        || rig.simulator.ledger().disks.iter().filter(|disk| disk.size == 3 << 30).count();
    rig.simulator.add_volume(104, "mp0", "mp=/data", 3 << 30).unwrap();
    for way in [RestoreWay::Swap, RestoreWay::InPlace] {
        let restore = rig.restore(&app, way, |_| {}).await;
        assert_eq!(rig.ended(restore, SOON).await, "undone");
        let why = said(restore, "operation.undone").await;
        assert!(why.contains("at /data") && why.contains("pct move-volume 104"), "{why}");
        let guest = rig.simulator.ledger().container(104).unwrap().clone();
        assert_eq!((guest.status.as_str(), volumes()), ("running", 1));
    }

    // It comes when nothing but the destruction is left.
    rig.simulator.edit_container(104, "mp0", None).unwrap();
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.destroy", refused)).unwrap();
    let restore = rig.restore(&app, RestoreWay::Swap, |plan| {
        plan.guest.vmid = 130.try_into().unwrap();
    });
    let restore = restore.await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.simulator.clear_faults();
    rig.simulator.add_volume(104, "mp0", "mp=/data", 3 << 30).unwrap();
    let resume = async || {
        let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("operation.resume"));
        let resume = Op::Resume { by: UserId(1), note: "mended".to_owned() };
        unit.apply::<Operation>(&restore.to_string(), resume).await.unwrap();
        unit.commit().await.unwrap();
        rig.ended(restore, SOON).await
    };
    assert_eq!(resume().await, "stuck");
    assert_eq!(volumes(), 2, "the first one's disk is left without an owner");
    assert!(said(restore, "operation.stuck").await.contains("not destroyed"));
    rig.simulator.edit_container(104, "mp0", None).unwrap();
    assert_eq!(resume().await, "done");
    assert!(rig.simulator.ledger().container(104).is_none());
    runner.stop().await;
}

/// Nobody can say which of two is the application's: the swap is one event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_given_up_keeps_the_container_that_the_log_names() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = stored(&rig).await;
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.destroy", refused)).unwrap();
    let restore = rig.restore(&app, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.abandon(restore, "removed by hand").await;
    let (state, _) = load::<Application>(&rig.store, app.as_str()).await.unwrap();
    let live = state.live().unwrap();
    assert_eq!((live.requested.guest.vmid.get(), live.current.is_some()), (105, false));
    let (old, _) = load::<Lease>(&rig.store, "vmid/lab/104").await.unwrap();
    assert!(matches!(old, Lease::Quarantined { .. }), "{old:?}");
    let (new, _) = load::<Lease>(&rig.store, "vmid/lab/105").await.unwrap();
    assert!(matches!(new, Lease::Held { .. }), "{new:?}");
    runner.stop().await;
}

/// Cancels an operation once it waits for a task with this in its id.
async fn cancel(rig: &Rig, operation: OperationId, task: &str) {
    let mut head = rig.store.watch_head();
    while !rig.events().await.iter().any(|event| event.payload.contains(task)) {
        tokio::time::timeout(SOON, head.changed()).await.expect("its task is noted").unwrap();
    }
    let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("operation.cancel"));
    let cancel = Op::Cancel { by: UserId(1), reason: "not wanted".to_owned() };
    unit.apply::<Operation>(&operation.to_string(), cancel).await.unwrap();
    unit.commit().await.unwrap();
}

/// Nobody would wait a quarter of an hour for what he no longer wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_operation_ends_the_task_that_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let patient = Duration::from_secs(15 * 60);
    let config = SagaConfig { task_patience: patient, disks_patience: patient, ..quick() };
    let rig = Rig::new(folder.path(), config).await;
    let before = rig.simulator.ledger();
    let runner = rig.run(None);
    let hangs = Fault::TaskNeverEnds { after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.create", hangs)).unwrap();
    let (_, operation) = rig.deploy("web", 104, 8100).await;
    cancel(&rig, operation, ":vzcreate:104:").await;
    assert_eq!(rig.ended(operation, SOON).await, "undone");
    let why = rig.events().await.into_iter().find(|e| e.event_type == "operation.undone").unwrap();
    assert!(why.payload.contains("cancelled: not wanted"), "{}", why.payload);
    assert_eq!(rig.simulator.ledger().leftovers(&before), Vec::<String>::new());

    // A graceful stop that is called off leaves it running: its power is not cut instead.
    rig.simulator.clear_faults();
    let (web, operation) = rig.deploy("web", 106, 8106).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let hangs = Fault::TaskNeverEnds { after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.shutdown", hangs)).unwrap();
    let stop = rig.begin(&web, Kind::Stop).await;
    cancel(&rig, stop, ":vzshutdown:106:").await;
    assert_eq!(rig.ended(stop, SOON).await, "undone");
    assert_eq!(rig.simulator.ledger().container(106).unwrap().status, "running");
    let seen = rig.simulator.requests_seen().requests;
    assert!(seen.iter().all(|request| !request.path.ends_with("/status/stop")), "never hard");
    runner.stop().await;
}

/// Our jobs never prune, so the storage's own retention is a limit that no second try gets past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beyond_the_storages_own_retention_fails_at_once_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    rig.simulator.set_retention("local", Some("keep-last=1")).unwrap();
    let runner = rig.run(None);
    let app = stored(&rig).await;
    let second = rig.back_up_as(&app, BackupId(2)).await;
    assert_eq!(rig.ended(second, SOON).await, "undone");
    let events = rig.events().await;
    let undone = events.iter().rfind(|event| event.event_type == "operation.undone").unwrap();
    for said in ["retention", "prune-backups", "There is a max backup limit of 1"] {
        assert!(undone.payload.contains(said), "{said}: {}", undone.payload);
    }
    let seen = rig.simulator.requests_seen().requests;
    let jobs = seen.iter().filter(|request| request.path.ends_with("/vzdump"));
    assert_eq!(jobs.count(), 2, "one each");
    assert_eq!(rig.simulator.ledger().backups.len(), 1);
    runner.stop().await;
}

/// TurnKey's applications are listed and stored beside the system that they are made on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appliance_on_a_system_is_never_taken_for_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let host = rig.env.hypervisors.of(HOST).await.unwrap();
    let appliance = "debian-12-turnkey-wordpress_18.2-1_amd64.tar.gz";
    host.download_appliance(&"pve1".parse().unwrap(), "local", appliance).await.unwrap();
    rig.simulator.idle().await;
    let stored = rig.simulator.ledger().templates;
    assert!(stored.iter().any(|line| line.volid.contains(appliance)), "{stored:?}");
    let runner = rig.run(None);
    let source = Source::Template { os: "debian".to_owned(), version: "12".to_owned() };
    let health = Health { probe: Probe::Running, within_s: 1 };
    let (_, operation) = rig.deploy_from("web", 104, 8100, source, health).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let events = rig.events().await;
    let found = events.iter().find(|event| event.payload.contains("local:vztmpl/")).unwrap();
    assert!(found.payload.contains("debian-12-standard_12.12-1"), "{}", found.payload);
    runner.stop().await;
}
