//! Operations end to end, on the real store, client and engine, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::load;
use proximity_commands::operations::Operations;
use proximity_commands::policy::Admin;
use proximity_commands::saga::SagaConfig;
use proximity_domain::ApplicationId;
use proximity_domain::application::Application;
use proximity_domain::lease::Lease;
use proximity_domain::plan::{Kind, RestoreWay};
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::checker;
use proximity_tests::rig::{Rig, quick};

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
    let found = checker::check(&rig.events().await, &rig.guests());
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
    let operations = Operations {
        store: rig.store.clone(),
        clock: rig.env.clock.clone(),
        quarantine: Duration::from_secs(900),
    };
    let admin = Admin::prove(&Actor::system("test")).unwrap();
    operations.abandon(&admin, restore, "removed by hand".to_owned()).await.unwrap();
    let (state, _) = load::<Application>(&rig.store, app.as_str()).await.unwrap();
    let live = state.live().unwrap();
    assert_eq!((live.requested.guest.vmid.get(), live.current.is_some()), (105, false));
    let (old, _) = load::<Lease>(&rig.store, "vmid/lab/104").await.unwrap();
    assert!(matches!(old, Lease::Quarantined { .. }), "{old:?}");
    let (new, _) = load::<Lease>(&rig.store, "vmid/lab/105").await.unwrap();
    assert!(matches!(new, Lease::Held { .. }), "{new:?}");
    runner.stop().await;
}
