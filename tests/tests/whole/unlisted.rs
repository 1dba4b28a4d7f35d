//! Storages that take root disks and no content `images`, on which Proxmox lists no disk without its
//! container: operations go as on any other, and what a broken-off one has left there is a person's.

use proximity_commands::saga::Point;
use proximity_domain::plan::{CloneWay, Kind, RestoreWay};
use proximity_simulator::{Fault, FaultRule};
use proximity_tests::rig::{Rig, quick};

use crate::dies_at::DiesAt;
use crate::left_over::{FIRST, SOON, destroy_by_hand, disks, kill_one};

const SECOND: &str = "local-btrfs:104/vm-104-disk-1.raw";
const STORAGE: &str = "local-btrfs";

async fn rig(folder: &std::path::Path) -> Rig {
    let rig = Rig::new(folder, quick()).await;
    rig.simulator.set_content(STORAGE, &["rootdir"]).unwrap();
    rig
}

/// The last event that says why it is stuck.
async fn stuck(rig: &Rig) -> String {
    let events = rig.events().await;
    events.into_iter().rfind(|event| event.event_type == "operation.stuck").unwrap().payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_go_well_there_and_one_that_fails_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path()).await;
    let runner = rig.run(None);
    let (web, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    assert_eq!(rig.ended(rig.begin(&web, Kind::Stop).await, SOON).await, "done");
    let (copy, cloning) = rig.clone_of(&web, "copy", 105, 8200, |_| CloneWay::Stopped).await;
    assert_eq!(rig.ended(cloning, SOON).await, "done");
    for application in [&copy, &web] {
        assert_eq!(rig.ended(rig.begin(application, Kind::Delete).await, SOON).await, "done");
    }
    let text = "unable to create image: No space left on device".to_owned();
    let fails = Fault::TaskFails { text, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("container.create", fails)).unwrap();
    let (_, deployment) = rig.deploy("mail", 106, 8101).await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert_eq!(disks(&rig), [] as [&str; 0]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_creation_has_left_there_is_named_while_it_is_listed_and_a_persons() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path()).await;
    let runner = rig.run(None);
    rig.simulator.set_clock_offset(-3_600);
    assert_eq!(rig.simulator.plant_disk("pve1", STORAGE, 104).unwrap(), FIRST);
    rig.simulator.set_clock_offset(0);
    kill_one(&rig, "container.create");
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = stuck(&rig).await;
    let left = format!("it has left {FIRST} (which may have been there before), {SECOND}; ");
    assert!(why.contains(&left), "{why}");
    assert!(why.contains("the storage local-btrfs does not take the content `images`"), "{why}");
    assert!(why.contains("before you resume or abandon it, let the storage take"), "{why}");
    assert!(!why.contains("then removes the volumes"), "{why}");
    destroy_by_hand(&rig, 104).await;
    rig.simulator.remove_volume(SECOND).unwrap();
    rig.resume(deployment, "destroyed, and freed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert_eq!(disks(&rig), [FIRST]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_saw_what_is_left_there_that_is_said_and_a_storage_that_lists_it_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path()).await;
    let dies = DiesAt::new(Point::AfterEffect, "create_container");
    let runner = rig.run(Some(dies.clone()));
    kill_one(&rig, "container.create");
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    dies.died().await;
    runner.stop().await;
    destroy_by_hand(&rig, 104).await;
    let runner = rig.run(None);
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = stuck(&rig).await;
    assert!(why.contains("has left under number 104 cannot be told"), "{why}");
    assert!(why.contains("`pvesm free STORAGE:NAME`"), "{why}");
    rig.simulator.set_content(STORAGE, &["rootdir", "images"]).unwrap();
    rig.resume(deployment, "it is listed now").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = stuck(&rig).await;
    assert!(why.contains(&format!("it has left {FIRST} under number 104")), "{why}");
    rig.resume(deployment, "nobody needs it").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert_eq!(disks(&rig), [] as [&str; 0]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_in_place_removes_what_it_has_left_there_once_the_storage_lists_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path()).await;
    let runner = rig.run(None);
    let (web, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    kill_one(&rig, "container.create");
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    let why = stuck(&rig).await;
    assert!(why.contains(&format!("before), {SECOND}; the storage {STORAGE} does not")), "{why}");
    assert!(why.contains("let the storage take the content `images` as well"), "{why}");
    rig.simulator.set_content(STORAGE, &["rootdir", "images"]).unwrap();
    destroy_by_hand(&rig, 104).await;
    rig.resume(restore, "it is listed now").await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    assert_eq!(disks(&rig), [FIRST]);
    runner.stop().await;
}
