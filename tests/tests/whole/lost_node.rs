//! A node of the cluster that is switched off: what goes on without it, and what is not concluded.

use std::time::Duration;

use proximity_commands::dispatch::load;
use proximity_domain::ApplicationId;
use proximity_domain::application::Application;
use proximity_domain::lease::Lease;
use proximity_domain::plan::Kind;
use proximity_simulator::{Fault, FaultRule};
use proximity_tests::rig::{Rig, quick};

const SOON: Duration = Duration::from_secs(60);

async fn running(rig: &Rig) -> ApplicationId {
    let (app, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_switched_off_holds_up_nothing_on_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 3).await;
    let baseline = rig.simulator.ledger();
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator.node_down("pve3").await.unwrap();
    let backup = rig.back_up(&app).await;
    assert_eq!(rig.ended(backup, SOON).await, "done");
    let removal = rig.delete_backup(&app).await;
    assert_eq!(rig.ended(removal, SOON).await, "done");
    let (_, undone) = {
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        rig.simulator.faults().add(FaultRule::forever("container.start", refused)).unwrap();
        rig.deploy("other", 105, 8101).await
    };
    assert_eq!(rig.ended(undone, SOON).await, "undone");
    rig.simulator.clear_faults();
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    rig.simulator.node_up("pve3").await.unwrap();
    assert_eq!(rig.simulator.ledger().leftovers(&baseline), Vec::<String>::new());
    runner.stop().await;
}

/// As when it fails between the call and the operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_on_a_shared_storage_is_removed_without_the_node_that_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 3).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    let backup = rig.back_up(&app).await;
    assert_eq!(rig.ended(backup, SOON).await, "done");
    rig.simulator.node_down("pve1").await.unwrap();
    // Where it is the node's own it is out of reach.
    let removal = rig.delete_backup(&app).await;
    assert_eq!(rig.ended(removal, SOON).await, "undone");
    let volume = rig.simulator.ledger().backups[0].volid.clone();
    rig.simulator.share_storage(volume.split(':').next().unwrap());
    let removal = rig.delete_backup(&app).await;
    assert_eq!(rig.ended(removal, SOON).await, "done");
    let left = rig.simulator.ledger().backups;
    assert!(left.iter().all(|archive| archive.node != "pve2"), "{left:?}");
    runner.stop().await;
}

/// Its configuration is still in the cluster, whatever its node says or does not say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_on_a_node_that_is_switched_off_is_never_taken_for_gone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 3).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator.move_container(104, "pve3").unwrap();
    rig.simulator.node_down("pve3").await.unwrap();
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "stuck");
    let events = rig.events().await;
    let reason = events.iter().rfind(|event| event.event_type == "operation.stuck").unwrap();
    assert!(reason.payload.contains("/nodes/pve3/"), "it names the node: {}", reason.payload);
    let (lease, _) = load::<Lease>(&rig.store, "vmid/lab/104").await.unwrap();
    assert!(matches!(lease, Lease::Held { .. }), "{lease:?}");
    assert!(rig.simulator.ledger().container(104).is_some());
    // The node is back, and the deletion, which had not come to its pivot, is taken back.
    rig.simulator.node_up("pve3").await.unwrap();
    rig.resume(deletion, "the node is back").await;
    assert_eq!(rig.ended(deletion, SOON).await, "undone");
    let (state, _) = load::<Application>(&rig.store, app.as_str()).await.unwrap();
    assert!(state.live().is_some());
    runner.stop().await;
}

/// As HA leaves it behind: the node that the plan names is gone, the container runs elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_left_a_node_which_was_switched_off_is_found_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 3).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator.move_container(104, "pve2").unwrap();
    rig.simulator.node_down("pve1").await.unwrap();
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    assert!(rig.simulator.ledger().container(104).is_none());
    runner.stop().await;
}

/// Without a majority nobody knows what the other part of the cluster does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_quorum_a_container_is_not_taken_for_gone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_nodes(folder.path(), quick(), 3).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator.remove_container(104).await.unwrap();
    rig.simulator.node_down("pve2").await.unwrap();
    rig.simulator.node_down("pve3").await.unwrap();
    // It is not begun.
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "undone");
    rig.simulator.node_up("pve2").await.unwrap();
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    runner.stop().await;
}
