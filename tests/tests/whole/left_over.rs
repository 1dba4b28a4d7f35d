//! Whose a left-over volume is: only what an operation has shown to have made itself is removed, nothing
//! that a guest has or a person put there, and what is left for good is named.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::saga::Point;
use proximity_domain::host::{Discrepancy, DiscrepancyKind, LeftVolume};
use proximity_domain::plan::{CloneWay, Kind, RestoreWay};
use proximity_domain::{ApplicationId, OperationId};
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::rig::{HOST, Rig, quick};

use crate::dies_at::DiesAt;

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const FIRST: &str = "local-btrfs:104/vm-104-disk-0.raw";
pub(crate) const SECOND: &str = "local-btrfs:104/vm-104-disk-1.raw";

pub(crate) fn kill_one(rig: &Rig, effect: &str) {
    let killed = Fault::TaskDiesAfterDisks { disks: 1, unseen: false };
    rig.simulator.faults().add(FaultRule::once(effect, killed)).unwrap();
}

pub(crate) fn disks(rig: &Rig) -> Vec<String> {
    rig.simulator.ledger().disks.into_iter().map(|disk| disk.volid).collect()
}

async fn last(rig: &Rig, kind: &str) -> String {
    rig.events().await.into_iter().rfind(|event| event.event_type == kind).unwrap().payload
}

/// `pct unlock` and `pct destroy`, as the instructions say.
pub(crate) async fn destroy_by_hand(rig: &Rig, vmid: u32) {
    rig.simulator.edit_container(vmid, "lock", None).unwrap();
    rig.simulator.destroy_container(vmid).await.unwrap();
}

/// Gives container 104 the number 204, and leaves its disk where it is.
async fn renumber(rig: &Rig, key: &str) {
    rig.simulator.edit_container(104, "rootfs", None).unwrap();
    rig.simulator.remove_container(104).await.unwrap();
    let config = [(key.to_owned(), format!("{FIRST},size=8G"))].into();
    let renumbered = Foreign { vmid: Some(204), config, ..Foreign::default() };
    rig.simulator.plant_container(renumbered).await.unwrap();
}

/// An application that runs as container 104, and a backup of it.
pub(crate) async fn stored(rig: &Rig) -> ApplicationId {
    rig.register().await;
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    assert_eq!(disks(rig), [FIRST]);
    web
}

/// A deployment that is stuck, since its worker was killed after the first disk; its container was then
/// destroyed by hand.
pub(crate) async fn broken_off(rig: &Rig) -> OperationId {
    kill_one(rig, "container.create");
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    destroy_by_hand(rig, 104).await;
    deployment
}

async fn look(rig: &Rig) -> Vec<Discrepancy> {
    let findings = rig.reconciler().reconcile(HOST, &Actor::system("test")).await;
    findings.unwrap().discrepancies
}

/// Proxmox says that a task of our own made a container under the number: the one of its deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_container_that_was_given_another_number_by_hand_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_token(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    let refused = Fault::Status { status: 500, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.create", refused)).unwrap();
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.simulator.clear_faults();
    renumber(&rig, "rootfs").await;
    rig.resume(restore, "it is 204 now").await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    assert!(disks(&rig).contains(&FIRST.to_owned()), "{:?}", disks(&rig));
    assert!(!rig.simulator.journal().iter().any(|effect| effect.what == "volume.deleted"));
    runner.stop().await;
}

/// The restore has run, so that the old disk counts as its to remove, but somebody has it by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_any_guest_has_stays_be_it_unused_or_in_a_snapshot() {
    for (key, in_snapshot) in [("rootfs", false), ("unused0", false), ("mp0", true)] {
        let folder = tempfile::tempdir().unwrap();
        let rig = Rig::of_token(folder.path(), quick()).await;
        let runner = rig.run(None);
        let web = stored(&rig).await;
        kill_one(&rig, "container.create");
        let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
        assert_eq!(rig.ended(restore, SOON).await, "stuck");
        rig.simulator.edit_container(104, "lock", None).unwrap();
        renumber(&rig, key).await;
        if in_snapshot {
            rig.simulator.plant_snapshot(204, "before").unwrap();
            rig.simulator.edit_container(204, key, None).unwrap();
        }
        rig.resume(restore, "it is 204 now").await;
        assert_eq!(rig.ended(restore, SOON).await, "done");
        assert!(disks(&rig).contains(&FIRST.to_owned()), "{key}: {:?}", disks(&rig));
        let deleted = rig.simulator.journal().into_iter();
        let deleted = deleted.filter(|effect| effect.what == "volume.deleted");
        let deleted: Vec<_> = deleted.filter_map(|effect| effect.volid).collect();
        assert_eq!(deleted, [SECOND], "{key}");
        runner.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_while_a_guests_configuration_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let deployment = broken_off(&rig).await;
    let other = Foreign { vmid: Some(300), ..Foreign::default() };
    rig.simulator.plant_container(other).await.unwrap();
    let before = disks(&rig);
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("snapshot.list", refused)).unwrap();
    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = last(&rig, "operation.stuck").await;
    assert!(why.contains("whether a guest has them cannot be told"), "{why}");
    assert_eq!(disks(&rig), before);
    rig.simulator.clear_faults();
    rig.resume(deployment, "it can be read").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert!(!disks(&rig).contains(&FIRST.to_owned()));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_was_put_there_by_hand_since_is_named_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_token(folder.path(), quick()).await;
    let runner = rig.run(None);
    let deployment = broken_off(&rig).await;
    rig.simulator.set_clock_offset(60);
    assert_eq!(rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap(), SECOND);
    rig.simulator.set_clock_offset(0);
    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    assert_eq!(disks(&rig), [SECOND], "its own is gone");
    let why = last(&rig, "operation.stuck").await;
    assert!(why.contains("nothing shows that this operation has made them"), "{why}");
    assert!(why.contains(&format!("run `pvesm free {SECOND}`, then resume")), "{why}");
    // Resumed without that, it is no more sure of it.
    rig.resume(deployment, "not mine either").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    assert_eq!(disks(&rig), [SECOND]);
    rig.simulator.remove_volume(SECOND).unwrap();
    rig.resume(deployment, "freed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    runner.stop().await;
}

/// By its time alone it could be the operation's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_named_to_whoever_resumed_it_is_named_before_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let deployment = broken_off(&rig).await;
    rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap();
    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = last(&rig, "operation.stuck").await;
    assert!(why.contains(&format!("it has left {SECOND} under number 104")), "{why}");
    assert_eq!(disks(&rig), [SECOND]);
    rig.resume(deployment, "nobody needs it").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert_eq!(disks(&rig), [] as [&str; 0]);
    runner.stop().await;
}

/// A copy goes by the number of its source, and puts nothing under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_somebody_made_of_the_container_is_no_reason_to_leave_disks_behind() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_token(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    let copied = async || {
        let copying = rig.simulator.plant_task(104, "vzclone").unwrap();
        assert!(rig.simulator.stop_task(&copying).await);
    };
    copied().await;
    kill_one(&rig, "container.create");
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    copied().await;
    let why = last(&rig, "operation.stuck").await;
    let both = format!("{FIRST} (a disk of the container that was there before), {SECOND}");
    assert!(why.contains(&format!("it has left {both}")), "{why}");
    assert!(!why.contains("disks were gone"), "{why}");
    destroy_by_hand(&rig, 104).await;
    assert_eq!(disks(&rig), [FIRST, SECOND]);
    rig.resume(restore, "destroyed").await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    let container = rig.simulator.ledger().container(104).unwrap().clone();
    assert!(container.config["rootfs"].starts_with(FIRST), "{:?}", container.config);
    assert_eq!(disks(&rig), [FIRST]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_copy_whose_source_was_migrated_is_found_where_the_copy_ran() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 2).await;
    let runner = rig.run(None);
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.begin(&source, Kind::Stop).await, SOON).await, "done");
    runner.stop().await;
    // Of the number of the copy, and on the node that was looked at.
    let old = rig.simulator.plant_disk("pve1", "local-btrfs", 105).unwrap();
    // It has looked what stands there, and has made nothing yet.
    let dies = DiesAt::new(Point::AfterIntent, "clone_container");
    let runner = rig.run(Some(dies.clone()));
    let (_, operation) = rig.clone_of(&source, "copy", 105, 8200, |_| CloneWay::Stopped).await;
    dies.died().await;
    runner.stop().await;
    rig.simulator.move_container(104, "pve2").unwrap();
    kill_one(&rig, "container.clone");
    let runner = rig.run(None);
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    let left = "local-btrfs:105/vm-105-disk-0.raw";
    assert_eq!(old, left, "both nodes have one of the same name");
    let why = last(&rig, "operation.stuck").await;
    assert!(why.contains(&format!("it has left {left}")), "{why}");
    // As the instructions say; Proxmox would not destroy it, since it is protected as its source is.
    assert!(why.contains("`pct unlock 105`") && !why.contains("pct destroy"), "{why}");
    for vmid in [104, 105] {
        rig.simulator.edit_container(vmid, "lock", None).unwrap();
    }
    assert!(rig.simulator.destroy_container(105).await.is_err());
    rig.resume(operation, "unlocked").await;
    assert_eq!(rig.ended(operation, SOON).await, "undone");
    let of_copy = rig.simulator.ledger().disks.into_iter().filter(|disk| disk.volid == left);
    assert_eq!(of_copy.map(|disk| disk.node).collect::<Vec<_>>(), ["pve1"]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operation_that_was_given_up_has_left_is_named_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    kill_one(&rig, "container.create");
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.abandon(restore, "no time").await;
    destroy_by_hand(&rig, 104).await;
    rig.simulator.plant_container(Foreign { vmid: Some(300), ..Foreign::default() }).await.unwrap();
    let left = |id: &str| Discrepancy {
        vmid: 104.try_into().unwrap(),
        node: "pve1".parse().unwrap(),
        kind: DiscrepancyKind::LeftOver,
        application: web.clone(),
        volume: Some(LeftVolume {
            storage: "local-btrfs".to_owned(),
            id: id.to_owned(),
            operation: restore,
        }),
        snapshot: None,
    };
    let both = [left(FIRST), left(SECOND)];
    assert_eq!(look(&rig).await, both);
    // A storage that does not answer says nothing of what is on it.
    let refused = Fault::Status { status: 500, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("content.list", refused)).unwrap();
    assert_eq!(look(&rig).await, both);
    rig.simulator.clear_faults();
    rig.simulator.remove_volume(SECOND).unwrap();
    assert_eq!(look(&rig).await, [left(FIRST)]);
    renumber_free(&rig).await;
    assert_eq!(look(&rig).await, [], "a guest has it now");
    // One that a person makes later under the same name is not what was overwritten.
    rig.simulator.edit_container(204, "rootfs", None).unwrap();
    rig.simulator.remove_volume(FIRST).unwrap();
    assert_eq!(look(&rig).await, []);
    rig.simulator.set_clock_offset(3_600);
    assert_eq!(rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap(), FIRST);
    rig.simulator.set_clock_offset(0);
    assert_eq!(look(&rig).await, []);
    runner.stop().await;
}

/// Gives the first disk, which nobody has, to a new guest.
async fn renumber_free(rig: &Rig) {
    let config = [("rootfs".to_owned(), format!("{FIRST},size=8G"))].into();
    let other = Foreign { vmid: Some(204), config, ..Foreign::default() };
    rig.simulator.plant_container(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_deployment_that_was_given_up_is_named_and_one_that_came_later_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    kill_one(&rig, "container.create");
    let (web, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    rig.abandon(deployment, "no time").await;
    let rest = look(&rig).await;
    assert!(rest.iter().all(|one| one.kind == DiscrepancyKind::BrokenOff), "{rest:?}");
    destroy_by_hand(&rig, 104).await;
    rig.simulator.plant_container(Foreign { vmid: Some(300), ..Foreign::default() }).await.unwrap();
    rig.simulator.set_clock_offset(3_600);
    rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap();
    rig.simulator.set_clock_offset(0);
    let found = look(&rig).await;
    let [one] = &*found else { panic!("{found:?}") };
    assert_eq!((one.kind, &one.application), (DiscrepancyKind::LeftOver, &web));
    assert_eq!(one.volume.as_ref().unwrap().id, FIRST);
    runner.stop().await;
}
