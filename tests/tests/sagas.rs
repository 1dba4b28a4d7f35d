//! Operations end to end, on the real store, client and engine, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use proximity_domain::plan::Kind;
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
