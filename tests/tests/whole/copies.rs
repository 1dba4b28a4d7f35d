//! Clones and adoptions end to end, on the real store, client and engine, against the simulator.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::reconcile::Reconciler;
use proximity_domain::application::{Application, Command as App, Error as Refusal};
use proximity_domain::host::{DiscrepancyKind, LeftSnapshot};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{CloneWay, Kind};
use proximity_domain::{OperationId, UserId};
use proximity_simulator::{Fault, FaultRule};
use proximity_tests::checker;
use proximity_tests::judged;
use proximity_tests::rig::{ADDRESS, HOST, Rig, quick, snapshot_of};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_a_stopped_application_is_stopped_and_has_an_address_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let stop = rig.begin(&source, Kind::Stop).await;
    assert_eq!(rig.ended(stop, SOON).await, "done");
    let address = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.7/24,gw=10.0.0.1";
    rig.simulator.edit_container(104, "net0", Some(address)).unwrap();
    let before = rig.simulator.ledger();

    let (copy, operation) = rig.clone_of(&source, "copy", 105, 8200, |_| CloneWay::Stopped).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let after = rig.simulator.ledger();
    assert_eq!(after.container(104), before.container(104), "the source is as it was");
    let guest = after.container(105).expect("the copy exists");
    assert_eq!((guest.status.as_str(), guest.name.as_str()), ("stopped", "copy"));
    let net = &guest.config["net0"];
    assert!(net.contains(&format!("ip={ADDRESS}/24")) && !net.contains("10.0.0.7"), "{net}");
    assert!(!net.contains("BC:24:11:00:00:01"), "{net}");
    let (state, _) = load::<Application>(&rig.store, copy.as_str()).await.unwrap();
    assert!(!state.live().unwrap().running);

    let start = rig.begin(&copy, Kind::Start).await;
    assert_eq!(rig.ended(start, SOON).await, "done");
    for application in [&copy, &source] {
        let gone = rig.begin(application, Kind::Delete).await;
        assert_eq!(rig.ended(gone, SOON).await, "done");
    }
    let events = rig.events().await;
    let found = checker::check(&events, &rig.guests());
    assert_eq!(judged::accusations_but_of_names(events).await, Vec::<String>::new());
    assert!(found.anomalies.is_empty() && found.held.is_empty(), "{found:#?}");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_24_a_snapshot_that_cannot_be_removed_leaves_the_clone_stuck_and_its_leases_held() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let before = rig.simulator.ledger();
    let refusal = Fault::Status { status: 500, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("snapshot.delete", refusal)).unwrap();

    let way = |operation| CloneWay::Snapshot { name: snapshot_of(operation) };
    let (copy, operation) = rig.clone_of(&source, "copy", 105, 8200, way).await;
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    let snapshots = rig.simulator.ledger().container(104).unwrap().snapshots.clone();
    assert_eq!(snapshots, [snapshot_of(operation)], "it is there to be seen");
    let events = rig.events().await;
    let found = checker::check(&events, &rig.guests());
    assert_eq!(judged::accusations_but_of_names(events).await, Vec::<String>::new());
    let held = found.held.values().filter(|holder| **holder == copy.as_str()).count();
    assert_eq!(held, 5, "{:#?}", found.held);
    for application in [&copy, &source] {
        let (state, _) = load::<Application>(&rig.store, application.as_str()).await.unwrap();
        assert!(state.current().is_some_and(|current| current.stuck), "{state:?}");
        let begin =
            App::BeginOperation { operation: OperationId(uuid::Uuid::new_v4()), kind: Kind::Stop };
        assert_eq!(state.decide(begin), Err(Refusal::Stuck { operation, kind: Kind::Clone }));
    }

    rig.simulator.clear_faults();
    let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("test.resume"));
    let resume = Op::Resume { by: UserId(1), note: "the storage works again".to_owned() };
    unit.apply::<Operation>(&operation.to_string(), resume).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(rig.ended(operation, SOON).await, "undone");
    assert_eq!(rig.simulator.ledger().leftovers(&before), Vec::<String>::new());
    let events = rig.events().await;
    let found = checker::check(&events, &rig.guests());
    assert_eq!(judged::accusations_but_of_names(events).await, Vec::<String>::new());
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    assert!(found.held.values().all(|holder| *holder == source.as_str()), "{:#?}", found.held);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_of_a_copy_that_was_given_up_is_named_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let refusal = Fault::Status { status: 500, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("snapshot.delete", refusal.clone())).unwrap();
    let way = |operation| CloneWay::Snapshot { name: snapshot_of(operation) };
    let (_, operation) = rig.clone_of(&source, "copy", 105, 8200, way).await;
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    let name = snapshot_of(operation);
    let events = rig.events().await;
    let why = &events.iter().rfind(|event| event.event_type == "operation.stuck").unwrap().payload;
    assert!(why.contains(&format!("`pct delsnapshot 104 {name}` on node pve1")), "{why}");
    let server = rig.reconciler();
    let left = async |server: &Reconciler| {
        let found = server.reconcile(HOST, &Actor::system("test")).await.unwrap();
        let left = found.discrepancies.into_iter();
        left.filter(|one| one.kind == DiscrepancyKind::LeftSnapshot).collect::<Vec<_>>()
    };
    assert_eq!(left(&server).await, [], "the operation has it");
    rig.abandon(operation, "no time").await;
    let found = left(&server).await;
    let [one] = &*found else { panic!("{found:?}") };
    assert_eq!((one.vmid.get(), &one.application), (104, &source));
    assert_eq!(one.snapshot, Some(LeftSnapshot { name: name.clone(), operation }));
    // Also for a server that has just been started, and while Proxmox does not tell.
    rig.simulator.faults().add(FaultRule::forever("snapshot.list", refusal)).unwrap();
    assert_eq!(left(&rig.reconciler()).await, found);
    rig.simulator.clear_faults();
    rig.simulator.remove_snapshot(104, &name);
    assert_eq!(left(&server).await, []);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_does_not_end_while_its_snapshot_is_on_a_source_that_has_lost_its_marker() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let refusal = Fault::Status { status: 500, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::forever("snapshot.delete", refusal)).unwrap();
    let way = |operation| CloneWay::Snapshot { name: snapshot_of(operation) };
    let (_, operation) = rig.clone_of(&source, "copy", 105, 8200, way).await;
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    rig.simulator.clear_faults();
    let ours = rig.simulator.ledger().container(104).unwrap().config["description"].clone();
    rig.simulator.edit_container(104, "description", Some("rewritten")).unwrap();
    rig.resume(operation, "it can be removed now").await;
    let stuck_again = async || {
        let mut head = rig.store.watch_head();
        loop {
            let events = rig.events().await;
            let mut stuck = events.iter().filter(|event| event.event_type == "operation.stuck");
            if let Some(again) = stuck.nth(1) {
                return again.payload.clone();
            }
            head.changed().await.unwrap();
        }
    };
    let why = tokio::time::timeout(SOON, stuck_again()).await.unwrap();
    let name = snapshot_of(operation);
    assert!(why.contains(&format!("the snapshot {name} is on container 104")), "{why}");
    rig.simulator.edit_container(104, "description", Some(&ours)).unwrap();
    rig.resume(operation, "it carries it again").await;
    assert_eq!(rig.ended(operation, SOON).await, "undone");
    assert_eq!(rig.simulator.ledger().container(104).unwrap().snapshots, [] as [&str; 0]);
    runner.stop().await;
}

/// The copy carries our marker, its source's protection and a creation's lock; the source is locked, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_copy_that_was_given_up_is_named_and_so_is_the_lock_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    let (source, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.begin(&source, Kind::Stop).await, SOON).await, "done");
    let killed = Fault::TaskDiesAfterDisks { disks: 1, unseen: false };
    rig.simulator.faults().add(FaultRule::once("container.clone", killed)).unwrap();
    let (copy, operation) = rig.clone_of(&source, "copy", 105, 8200, |_| CloneWay::Stopped).await;
    assert_eq!(rig.ended(operation, SOON).await, "stuck");
    let last = async |kind: &str| {
        let events = rig.events().await;
        events.into_iter().rfind(|event| event.event_type == kind).unwrap().payload
    };
    let why = last("operation.stuck").await;
    assert!(why.contains("run `pct unlock 104`, also if you abandon the operation"), "{why}");
    rig.abandon(operation, "no time").await;

    let found = rig.reconciler().reconcile(HOST, &Actor::system("test")).await.unwrap();
    assert_eq!(found.removals, []);
    let [one] = &*found.discrepancies else { panic!("{found:?}") };
    assert_eq!((one.vmid.get(), one.kind), (105, DiscrepancyKind::BrokenOff));
    assert_eq!(one.application, copy);

    let start = rig.begin(&source, Kind::Start).await;
    assert_eq!(rig.ended(start, SOON).await, "undone");
    let why = last("operation.undone").await;
    assert!(why.contains("CT is locked (disk); on node pve1, see with `pct config 104`"), "{why}");
    assert!(why.contains("an administrator has to run `pct unlock 104`"), "{why}");
    let problem = last("application.operation_failed").await;
    assert!(problem.contains("`pct unlock 104`"), "{problem}");
    for vmid in [104, 105] {
        rig.simulator.edit_container(vmid, "lock", None).unwrap();
    }
    assert!(rig.simulator.destroy_container(105).await.is_err(), "it is protected");
    rig.simulator.edit_container(105, "protection", Some("0")).unwrap();
    rig.simulator.destroy_container(105).await.unwrap();
    assert_eq!(rig.ended(rig.begin(&source, Kind::Start).await, SOON).await, "done");
    runner.stop().await;
}
