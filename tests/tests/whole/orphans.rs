//! Workers that are killed in the middle of making a container: the disks that no configuration names go,
//! if they are ours; and a cluster without quorum, on which nothing is begun.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::Unit;
use proximity_commands::saga::step_names;
use proximity_domain::operation::{Command as Op, Direction, Operation};
use proximity_domain::plan::{DeletePlan, GuestRef, Kind, Plan, RestoreWay};
use proximity_domain::{ApplicationId, OperationId, UserId};
use proximity_eventstore::{Value, tables};
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::rig::{CLUSTER, HOST, Rig, quick};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);

fn kill_one(rig: &Rig, effect: &str) {
    let killed = Fault::TaskDiesAfterDisks { disks: 1, unseen: false };
    rig.simulator.faults().add(FaultRule::once(effect, killed)).unwrap();
}

fn disks(rig: &Rig) -> Vec<String> {
    rig.simulator.ledger().disks.into_iter().map(|disk| disk.volid).collect()
}

/// The last event that says why it is stuck.
async fn stuck(rig: &Rig) -> String {
    let events = rig.events().await;
    events.into_iter().rfind(|event| event.event_type == "operation.stuck").unwrap().payload
}

/// `pct unlock` and `pct destroy`, as the instructions say.
async fn destroy_by_hand(rig: &Rig, vmid: u32) {
    rig.simulator.edit_container(vmid, "lock", None).unwrap();
    rig.simulator.destroy_container(vmid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_creation_that_was_killed_goes_and_one_that_stood_there_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let old = rig.simulator.plant_disk("pve1", "local-btrfs", 104).unwrap();
    kill_one(&rig, "container.create");
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = stuck(&rig).await;
    let left = "local-btrfs:104/vm-104-disk-1.raw";
    assert!(why.contains(&format!("it has left {left}")), "{why}");
    assert!(why.contains("`pct unlock 104`") && why.contains("then removes the volumes"), "{why}");
    assert_eq!(disks(&rig), [old.clone(), left.to_owned()]);

    destroy_by_hand(&rig, 104).await;
    assert_eq!(disks(&rig), [old.clone(), left.to_owned()], "no configuration named it");
    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    assert_eq!(disks(&rig), [old]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_restore_that_was_killed_goes_and_the_applications_own_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let (web, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    let before = disks(&rig);
    kill_one(&rig, "container.create");
    let restore = rig.restore(&web, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    assert_eq!(disks(&rig).len(), before.len() + 1);
    destroy_by_hand(&rig, 105).await;
    rig.resume(restore, "destroyed").await;
    assert_eq!(rig.ended(restore, SOON).await, "undone");
    assert_eq!(disks(&rig), before);
    runner.stop().await;
}

/// Whose a disk is that stands there then, nothing tells any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_stays_and_is_named_when_somebody_has_made_a_guest_under_the_number_since() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    kill_one(&rig, "container.create");
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    destroy_by_hand(&rig, 104).await;
    let left = disks(&rig);
    let stranger = Foreign { vmid: Some(104), ..Foreign::default() };
    rig.simulator.plant_container(stranger).await.unwrap();
    let creation = rig.simulator.plant_task(104, "vzcreate").unwrap();
    rig.simulator.stop_task(&creation).await;
    rig.simulator.remove_container(104).await.unwrap();

    rig.resume(deployment, "destroyed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    let why = stuck(&rig).await;
    assert!(why.contains(&format!("run `pvesm free {}`, then resume", left[0])), "{why}");
    assert!(why.contains("nothing shows that this operation has made them"), "{why}");
    assert_eq!(disks(&rig), left);
    rig.simulator.remove_volume(&left[0]).unwrap();
    rig.resume(deployment, "freed").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_begun_on_a_cluster_without_quorum_and_the_operation_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 2).await;
    let runner = rig.run(None);
    rig.simulator.node_down("pve2").await.unwrap();
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    let events = rig.events().await;
    let undone = events.iter().rfind(|event| event.event_type == "operation.undone").unwrap();
    assert!(undone.payload.contains("the cluster has no quorum"), "{undone:?}");
    assert!(!events.iter().any(|event| event.event_type == "operation.step_intended"));

    rig.simulator.node_up("pve2").await.unwrap();
    let (mail, deployment) = rig.deploy("mail", 105, 8101).await;
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    rig.simulator.node_down("pve2").await.unwrap();
    // Stopping changes no configuration.
    assert_eq!(rig.ended(rig.begin(&mail, Kind::Stop).await, SOON).await, "done");
    assert_eq!(rig.ended(rig.begin(&mail, Kind::Start).await, SOON).await, "undone");
    runner.stop().await;
}

/// As a version planned it that did not note the host with the operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_of_an_older_version_on_what_is_left_keeps_its_host_while_it_is_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    rig.register().await;
    let guest = GuestRef {
        host: HOST,
        cluster: CLUSTER.parse().unwrap(),
        node: "pve1".parse().unwrap(),
        vmid: 104.try_into().unwrap(),
    };
    let plan = Plan::Delete(DeletePlan {
        guest: Some(guest),
        holdings: None,
        was_running: false,
        adopted_by: None,
        replaced: false,
        detached: true,
    });
    let operation = OperationId(Uuid::new_v4());
    let step = step_names(&plan)[0].clone();
    let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("test.plan"));
    for command in [
        Op::Plan {
            application: ApplicationId::new("alpine", rand::random()).unwrap(),
            owner: UserId(1),
            steps: step_names(&plan),
            plan: Box::new(plan),
            deadline: i64::MAX,
        },
        Op::IntendStep { step: step.clone(), direction: Direction::Act, stood: None, site: None },
        Op::GetStuck {
            step,
            direction: Direction::Act,
            reason: "refused".to_owned(),
            instructions: "mend it".to_owned(),
        },
    ] {
        unit.apply::<Operation>(&operation.to_string(), command).await.unwrap();
    }
    unit.commit().await.unwrap();
    let kept = async || {
        let filter = vec![("host_id", Value::Text(HOST.to_string()))];
        rig.store.rows(&tables::HOST_USAGE, filter, 10).await.unwrap().len()
    };
    assert_eq!(kept().await, 0);

    let runner = rig.run(None);
    while kept().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.abandon(operation, "it is kept").await;
    assert_eq!(kept().await, 0);
    runner.stop().await;
}
