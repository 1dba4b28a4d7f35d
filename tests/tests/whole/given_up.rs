//! Operations that an operator has given up half-way: what they left is named, and the application can be
//! started, restored or deleted.

use std::time::{Duration, Instant};

use proximity_commands::Actor;
use proximity_commands::dispatch::load;
use proximity_commands::reconcile::{Findings, Reconciler};
use proximity_domain::ApplicationId;
use proximity_domain::application::{Application, Live, Loss};
use proximity_domain::host::DiscrepancyKind;
use proximity_domain::plan::{Kind, RestoreWay};
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::rig::{HOST, Rig, quick};

const SOON: Duration = Duration::from_secs(60);
/// What an operator has to do about container 104.
const BY_HAND: &str = "pct unlock 104 && pct destroy 104 --purge";

fn killed() -> FaultRule {
    FaultRule::once("container.create", Fault::TaskDies { after_effect: false })
}

/// An application that runs as container 104 with notes of its owner's, and a backup of it.
async fn stored(rig: &Rig) -> ApplicationId {
    rig.register().await;
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let marked = rig.simulator.ledger().container(104).unwrap().config["description"].clone();
    let noted = format!("ask Ada\n{marked}");
    rig.simulator.edit_container(104, "description", Some(&noted)).unwrap();
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    web
}

async fn live(rig: &Rig, id: &ApplicationId) -> Live {
    let (state, _) = load::<Application>(&rig.store, id.as_str()).await.unwrap();
    state.live().expect("it is live").clone()
}

async fn last(rig: &Rig, kind: &str) -> String {
    rig.events().await.into_iter().rfind(|event| event.event_type == kind).unwrap().payload
}

async fn look(reconciler: &Reconciler) -> Findings {
    reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap()
}

fn found(findings: &Findings) -> Vec<(u32, DiscrepancyKind, &ApplicationId)> {
    let found = findings.discrepancies.iter();
    found.map(|one| (one.vmid.get(), one.kind, &one.application)).collect()
}

/// `pct unlock` and `pct destroy`, as the advice says.
async fn destroy_by_hand(rig: &Rig) {
    rig.simulator.edit_container(104, "lock", None).unwrap();
    rig.simulator.destroy_container(104).await.unwrap();
}

/// Proxmox has destroyed the disks by then, and destroys nothing that is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_in_place_that_was_broken_off_and_given_up_is_named_and_made_good_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    rig.simulator.faults().add(killed()).unwrap();
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    let why = last(&rig, "operation.stuck").await;
    assert!(why.contains(BY_HAND) && why.contains("abandoning it instead does not help"), "{why}");
    assert!(rig.simulator.ledger().container(104).unwrap().config.keys().eq(["lock"]));
    rig.abandon(restore, "no time").await;

    let reconciler = rig.reconciler();
    let left = (104, DiscrepancyKind::BrokenOff, &web);
    let first = look(&reconciler).await;
    assert_eq!((found(&first), &*first.changed), (vec![left], std::slice::from_ref(&web)));
    assert_eq!(live(&rig, &web).await.lost, Some(Loss::Gone));
    let second = look(&reconciler).await;
    assert_eq!((found(&second), second.changed.len()), (vec![left], 0));

    let deletion = rig.begin(&web, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "undone");
    let why = last(&rig, "operation.undone").await;
    assert!(why.contains(BY_HAND), "{why}");

    let lost = Some(Loss::Gone);
    let restore = rig.restore(&web, RestoreWay::Swap, |plan| plan.lost = lost).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    let restored = rig.simulator.ledger().container(105).unwrap().clone();
    assert!(restored.config["description"].starts_with("ask Ada\n"), "{:?}", restored.config);
    assert_eq!((&*restored.status, live(&rig, &web).await.lost), ("running", None));
    // Its number is not the application's any more, and what is left there still is for a person.
    let third = look(&reconciler).await;
    assert_eq!((found(&third), third.removals.len()), (vec![left], 0));
    destroy_by_hand(&rig).await;
    // What the restore had made, no configuration named.
    assert_eq!(found(&look(&reconciler).await), [(104, DiscrepancyKind::LeftOver, &web)]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_creation_that_was_given_up_has_left_is_named_once_no_task_works_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    rig.simulator.faults().add(killed()).unwrap();
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    rig.abandon(operation, "no time").await;
    let reconciler = rig.reconciler();
    let task = rig.simulator.plant_task(104, "vzcreate").unwrap();
    assert_eq!(found(&look(&reconciler).await), []);
    assert!(rig.simulator.stop_task(&task).await);
    // A copy goes by the number of its source.
    rig.simulator.plant_container(Foreign { vmid: Some(900), ..Foreign::default() }).await.unwrap();
    let copying = rig.simulator.plant_task(900, "vzclone").unwrap();
    assert_eq!(found(&look(&reconciler).await), []);
    assert!(rig.simulator.stop_task(&copying).await);
    let left = look(&reconciler).await;
    assert_eq!(found(&left), [(104, DiscrepancyKind::BrokenOff, &web)]);
    assert_eq!(left.removals, []);
    destroy_by_hand(&rig).await;
    assert_eq!(found(&look(&reconciler).await), [(104, DiscrepancyKind::LeftOver, &web)]);
    // One with a name and a disk is more than a lock, and a person's.
    let lock = Some("create".to_owned());
    let theirs = Foreign { vmid: Some(104), lock, ..Foreign::default() };
    rig.simulator.plant_container(theirs).await.unwrap();
    assert_eq!(found(&look(&reconciler).await), []);
    runner.stop().await;
}

/// Its disks are gone by then, and Proxmox destroys nothing that is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_destruction_that_was_given_up_has_left_is_named_and_no_strangers() {
    for is_deletion in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let rig = Rig::new(folder.path(), quick()).await;
        let runner = rig.run(None);
        rig.register().await;
        let dies = FaultRule::once("container.destroy", Fault::TaskDiesMidway);
        rig.simulator.faults().add(dies).unwrap();
        let (web, operation) = if is_deletion {
            let (web, deployment) = rig.deploy("web", 104, 8100).await;
            assert_eq!(rig.ended(deployment, SOON).await, "done");
            let deletion = rig.begin(&web, Kind::Delete).await;
            (web, deletion)
        } else {
            let refused = Fault::Status { status: 403, reason: None, after_effect: false };
            rig.simulator.faults().add(FaultRule::forever("container.start", refused)).unwrap();
            rig.deploy("web", 104, 8100).await
        };
        assert_eq!(rig.ended(operation, SOON).await, "stuck");
        rig.simulator.clear_faults();
        let before = rig.simulator.requests_seen().requests.len();
        rig.abandon_for(operation, "no time", Duration::ZERO).await;
        // The sweep looks whether the number is free.
        let deadline = Instant::now() + SOON;
        while !rig.simulator.requests_seen().requests[before..]
            .iter()
            .any(|request| request.path.contains("/lxc/104/config"))
        {
            let foreign = rig.events().await;
            let foreign = foreign.iter().find(|event| event.event_type == "lease.found_foreign");
            assert!(foreign.is_none(), "{foreign:?}");
            assert!(Instant::now() < deadline, "nobody has looked");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let reconciler = rig.reconciler();
        let task = rig.simulator.plant_task(104, "vzdestroy").unwrap();
        assert_eq!(found(&look(&reconciler).await), []);
        assert!(rig.simulator.stop_task(&task).await);
        let left = look(&reconciler).await;
        assert_eq!(found(&left), [(104, DiscrepancyKind::BrokenOff, &web)]);
        assert_eq!(left.removals, []);
        destroy_by_hand(&rig).await;
        assert_eq!(found(&look(&reconciler).await), []);
        runner.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_a_given_up_restore_stopped_is_known_to_be_and_protected_again() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.create", refused)).unwrap();
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.simulator.clear_faults();
    let protection = || {
        let guest = rig.simulator.ledger().container(104).unwrap().clone();
        guest.config.get("protection").is_some_and(|set| set == "1")
    };
    let reconciler = rig.reconciler();
    look(&reconciler).await;
    assert!(!protection(), "the operation has it");
    rig.abandon(restore, "no time").await;
    assert!(!live(&rig, &web).await.running);
    let findings = look(&reconciler).await;
    assert!(protection() && findings.changed.is_empty(), "{findings:?}");
    // Taken off by hand, it stays off, also for a server that has just been started.
    rig.simulator.edit_container(104, "protection", None).unwrap();
    for reconciler in [&reconciler, &rig.reconciler(), &rig.reconciler()] {
        look(reconciler).await;
        assert!(!protection());
    }
    let told = rig.events().await;
    let told = told.iter().filter(|event| event.event_type == "application.protected");
    assert_eq!(told.count(), 1);
    // It is not taken for running.
    assert_eq!(rig.ended(rig.begin(&web, Kind::Start).await, SOON).await, "done");
    assert_eq!(rig.simulator.ledger().container(104).unwrap().status, "running");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protection_that_a_given_up_operation_never_took_off_is_as_a_person_has_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    rig.simulator.edit_container(104, "protection", None).unwrap();
    rig.simulator.faults().add(killed()).unwrap();
    let restore = rig.restore(&web, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.abandon(restore, "no time").await;
    look(&rig.reconciler()).await;
    let guest = rig.simulator.ledger().container(104).unwrap().clone();
    assert!(guest.config.get("protection").is_none_or(|set| set == "0"), "{:?}", guest.config);
    runner.stop().await;
}

/// What Proxmox says may be about any creation and any lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_is_to_be_destroyed_for_a_word_that_proxmox_has_used() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    for text in [
        "unable to create image: LINSTOR: resource creation failed",
        "mount: /mnt: can't read superblock on /dev/loop1",
    ] {
        let fails = Fault::TaskFails { text: text.to_owned(), after_effect: false };
        rig.simulator.faults().add(FaultRule::forever("container.create", fails)).unwrap();
        let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
        assert_eq!(rig.ended(restore, SOON).await, "stuck");
        let why = last(&rig, "operation.stuck").await;
        assert!(why.contains(text) && !why.contains("pct "), "{why}");
        rig.simulator.clear_faults();
        rig.resume(restore, "mended").await;
        assert_eq!(rig.ended(restore, SOON).await, "done");
    }
    runner.stop().await;
}
