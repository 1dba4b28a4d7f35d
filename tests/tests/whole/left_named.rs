//! Which volumes that operations have left are named, for how long, and at what cost.

use std::collections::BTreeMap;

use proximity_commands::Actor;
use proximity_commands::dispatch::Unit;
use proximity_commands::reconcile::Reconciler;
use proximity_commands::saga::{Point, RunnerHandle};
use proximity_domain::HostId;
use proximity_domain::host::{Command as HostCommand, Discrepancy, DiscrepancyKind, Host};
use proximity_domain::plan::{CloneWay, Kind, RestoreWay};
use proximity_simulator::{Fault, FaultRule, Foreign, Times, When};
use proximity_tests::rig::{HOST, Rig, quick};
use tempfile::TempDir;

use crate::dies_at::DiesAt;
use crate::left_over::{FIRST, SECOND, SOON, broken_off, destroy_by_hand, disks, kill_one, stored};

const REFUSED: Fault = Fault::Status { status: 403, reason: None, after_effect: false };

/// What one server, which remembers what it saw, has named after another look.
async fn left_over(server: &Reconciler) -> Vec<Discrepancy> {
    let findings = server.reconcile(HOST, &Actor::system("test")).await.unwrap();
    let mut found = findings.discrepancies;
    found.retain(|one| one.kind == DiscrepancyKind::LeftOver);
    found
}

async fn named(server: &Reconciler) -> Vec<String> {
    left_over(server).await.into_iter().map(|one| one.volume.unwrap().id).collect()
}

async fn plant(rig: &Rig, vmid: u32) {
    let other = Foreign { vmid: Some(vmid), ..Foreign::default() };
    rig.simulator.plant_container(other).await.unwrap();
}

/// A deployment that has left its first disk, and was given up.
async fn given_up(rig: &Rig) {
    rig.register().await;
    let deployment = broken_off(rig).await;
    rig.abandon(deployment, "no time").await;
}

/// The same in a cluster of its own.
async fn given_up_alone() -> (TempDir, Rig, RunnerHandle) {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    given_up(&rig).await;
    (folder, rig, runner)
}

/// How many calls of each kind a look makes: by the last word of their paths.
async fn calls_of_a_look(rig: &Rig, server: &Reconciler) -> BTreeMap<String, usize> {
    let before = rig.simulator.requests_seen().requests.len();
    named(server).await;
    let mut calls = BTreeMap::new();
    for request in rig.simulator.requests_seen().requests.into_iter().skip(before) {
        let path = request.path.split('?').next().unwrap_or_default();
        let word = path.rsplit('/').next().unwrap_or_default();
        *calls.entry(word.to_owned()).or_default() += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_a_guest_was_given_is_named_no_more_and_again_once_it_was_taken_away() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST]);
    let mount = format!("{FIRST},mp=/rescue,size=8G");
    rig.simulator.edit_container(300, "mp0", Some(&mount)).unwrap();
    assert_eq!(named(&server).await, [] as [&str; 0]);
    rig.simulator.edit_container(300, "mp0", None).unwrap();
    assert_eq!(named(&server).await, [FIRST]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_stays_so_while_a_guest_cannot_be_read_also_after_a_restart() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    assert_eq!(named(&rig.reconciler()).await, [FIRST]);
    let when = When { path: Some("/lxc/300/".to_owned()), ..When::default() };
    let unreadable = FaultRule { when, times: Times::Forever, fault: REFUSED };
    rig.simulator.faults().add(unreadable).unwrap();
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST]);
    assert_eq!(named(&server).await, [FIRST]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_not_mounted_for_a_moment_makes_nobody_forget_what_is_in_it() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST]);
    rig.simulator.faults().add(FaultRule::forever("content.list", Fault::EmptyList)).unwrap();
    assert_eq!(named(&server).await, [] as [&str; 0]);
    rig.simulator.clear_faults();
    assert_eq!(named(&server).await, [FIRST]);
    runner.stop().await;
}

/// Where nobody could see what was there before: on another node, or in a storage that listed nothing then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_older_than_the_operation_is_not_its() {
    let (_folder, rig, runner) = given_up_alone().await;
    rig.simulator.set_clock_offset(-3_600);
    assert_eq!(rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap(), SECOND);
    rig.simulator.set_clock_offset(0);
    assert_eq!(named(&rig.reconciler()).await, [FIRST]);
    runner.stop().await;
}

/// Its own container was destroyed by hand, and somebody made another one under its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_deployment_that_was_undone_while_another_had_its_number_is_named_later() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    let deployment = broken_off(&rig).await;
    plant(&rig, 104).await;
    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [] as [&str; 0], "somebody has the number");
    rig.simulator.remove_container(104).await.unwrap();
    assert!(disks(&rig).contains(&FIRST.to_owned()), "{:?}", disks(&rig));
    let found = left_over(&server).await;
    let [one] = &*found else { panic!("{found:?}") };
    let volume = one.volume.as_ref().unwrap();
    assert_eq!((&*volume.id, volume.operation), (FIRST, deployment));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_that_a_deployment_has_left_under_the_number_that_it_had_before_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    rig.register().await;
    kill_one(&rig, "container.create");
    let dies = DiesAt::new(Point::AfterEffect, "create_container");
    let runner = rig.run(Some(dies.clone()));
    let (web, deployment) = rig.deploy("web", 104, 8100).await;
    dies.died().await;
    runner.stop().await;
    destroy_by_hand(&rig, 104).await;
    plant(&rig, 104).await;
    let runner = rig.run(None);
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [] as [&str; 0], "somebody has the number");
    rig.simulator.remove_container(104).await.unwrap();
    let found = left_over(&server).await;
    let [one] = &*found else { panic!("{found:?}") };
    assert_eq!((one.vmid.get(), &one.application), (104, &web));
    let volume = one.volume.as_ref().unwrap();
    assert_eq!((&*volume.id, volume.operation), (FIRST, deployment));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_has_left_nothing_costs_no_look_at_a_storage() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    // It takes another number, and has made nothing under the first.
    plant(&rig, 104).await;
    let (_, moved) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(moved, SOON).await, "done");
    // Its container was made, and is destroyed again.
    rig.simulator.faults().add(FaultRule::forever("container.start", REFUSED)).unwrap();
    let (_, undone) = rig.deploy("api", 105, 8101).await;
    assert_eq!(rig.ended(undone, SOON).await, "undone");
    // Nothing was ever made.
    rig.simulator.faults().add(FaultRule::forever("container.create", REFUSED)).unwrap();
    let (_, refused) = rig.deploy("db", 106, 8102).await;
    assert_eq!(rig.ended(refused, SOON).await, "undone");
    rig.simulator.clear_faults();
    let calls = calls_of_a_look(&rig, &rig.reconciler()).await;
    assert_eq!(calls.get("content"), None, "{calls:?}");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_read_once_for_all_that_is_left_and_numbers_asked_about_once() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    for vmid in 104..107 {
        kill_one(&rig, "container.create");
        let (_, deployment) = rig.deploy(&format!("web{vmid}"), vmid, 8000 + vmid).await;
        assert_eq!(rig.ended(deployment, SOON).await, "stuck");
        rig.abandon(deployment, "no time").await;
        destroy_by_hand(&rig, vmid.try_into().unwrap()).await;
    }
    for vmid in 300..305 {
        plant(&rig, vmid).await;
    }
    let server = rig.reconciler();
    let first = calls_of_a_look(&rig, &server).await;
    assert_eq!(named(&server).await.len(), 3);
    let next = calls_of_a_look(&rig, &server).await;
    for calls in [&first, &next] {
        let of = |word: &str| calls.get(word).copied().unwrap_or_default();
        assert_eq!([of("content"), of("snapshot"), of("config")], [1, 5, 10], "{calls:?}");
    }
    assert_eq!(first.get("nextid"), Some(&3), "{first:?}");
    assert_eq!([next.get("nextid"), next.get("tasks")], [None; 2], "{next:?}");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_guests_are_read_in_turn_and_nothing_is_named_before_all_were() {
    let (_folder, rig, runner) = given_up_alone().await;
    for vmid in 300..341 {
        plant(&rig, vmid).await;
    }
    let server = rig.reconciler();
    let first = calls_of_a_look(&rig, &server).await;
    assert_eq!(first.get("snapshot"), Some(&40), "{first:?}");
    assert_eq!(named(&server).await, [FIRST]);
    assert_eq!(named(&rig.reconciler()).await, [FIRST], "another server knows it from the log");
    runner.stop().await;
}

/// What tells of the task is lost as well, so that nobody knows its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_an_overwritten_container_is_named_also_when_no_reply_told_of_the_restore() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let web = stored(&rig).await;
    let killed = Fault::TaskDiesAfterDisks { disks: 1, unseen: true };
    rig.simulator.faults().add(FaultRule::once("container.create", killed)).unwrap();
    let restore = rig.restore(&web, RestoreWay::InPlace, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.abandon(restore, "no time").await;
    destroy_by_hand(&rig, 104).await;
    plant(&rig, 300).await;
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST, SECOND]);
    // Whoever looks at what is on them changes their times.
    rig.simulator.set_clock_offset(3_600);
    rig.simulator.touch_volume(FIRST);
    rig.simulator.touch_volume(SECOND);
    rig.simulator.set_clock_offset(0);
    assert_eq!(named(&server).await, [FIRST, SECOND]);
    assert_eq!(named(&rig.reconciler()).await, [FIRST, SECOND]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_a_storage_that_is_gone_is_named_no_more() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST]);
    // An error alone is no proof of that.
    rig.simulator.faults().add(FaultRule::forever("content.list", REFUSED)).unwrap();
    assert_eq!(named(&server).await, [FIRST]);
    rig.simulator.clear_faults();
    rig.simulator.remove_storage("local-btrfs");
    assert_eq!(named(&server).await, [] as [&str; 0]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_in_a_cluster_is_named_also_when_its_host_was_registered_anew() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("test.remove"));
    unit.apply::<Host>(&HOST.to_string(), HostCommand::Remove).await.unwrap();
    unit.commit().await.unwrap();
    let anew = HostId(2);
    rig.register_as(anew).await;
    let findings = rig.reconciler().reconcile(anew, &Actor::system("test")).await.unwrap();
    let named = findings.discrepancies.into_iter().filter_map(|one| Some(one.volume?.id));
    assert_eq!(named.collect::<Vec<_>>(), [FIRST]);
    runner.stop().await;
}

/// A storage that does not answer is waited for, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_asked_no_more_in_that_look() {
    let (_folder, rig, runner) = given_up_alone().await;
    plant(&rig, 300).await;
    let server = rig.reconciler();
    assert_eq!(named(&server).await, [FIRST]);
    let silent = FaultRule::forever("content.list", Fault::NoReplyBeforeEffect);
    rig.simulator.faults().add(silent).unwrap();
    let calls = calls_of_a_look(&rig, &server).await;
    assert_eq!(calls.get("storage"), None, "{calls:?}");
    assert_eq!(named(&server).await, [FIRST]);
    runner.stop().await;
}

/// The storage is shared, and tells no times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_not_left_by_a_copy_that_ran_on_another_node() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 2).await;
    let runner = rig.run(None);
    rig.register().await;
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.begin(&source, Kind::Stop).await, SOON).await, "done");
    runner.stop().await;
    let old = rig.simulator.plant_disk("pve1", "local-btrfs", 105).unwrap();
    rig.simulator.share_storage("local-btrfs");
    rig.simulator.hide_times("local-btrfs");
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
    rig.abandon(operation, "no time").await;
    for (vmid, key) in [(104, "lock"), (105, "lock"), (105, "protection")] {
        rig.simulator.edit_container(vmid, key, None).unwrap();
    }
    rig.simulator.destroy_container(105).await.unwrap();
    let found = named(&rig.reconciler()).await;
    assert_eq!(found, ["local-btrfs:105/vm-105-disk-1.raw"], "{old} stood there before");
    runner.stop().await;
}
