//! Operations end to end, on the real store, client and engine, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use proximity_commands::saga::SagaConfig;
use proximity_domain::plan::Kind;
use proximity_simulator::{Fault, FaultRule};
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
