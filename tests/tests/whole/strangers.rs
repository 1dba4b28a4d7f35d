//! What others do with our containers on Proxmox while operations run: consoles, migrations, and
//! destructions that were broken off, theirs and ours.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::saga::SagaConfig;
use proximity_domain::application::Application;
use proximity_domain::operation::{Command as Op, Operation, Phase};
use proximity_domain::plan::Kind;
use proximity_domain::{ApplicationId, BackupId, UserId};
use proximity_eventstore::Recorded;
use proximity_simulator::{Fault, FaultRule, Foreign};
use proximity_tests::rig::{HOST, Rig, quick};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// As it is in service: nothing is given up within the time of a test.
fn patient() -> SagaConfig {
    let patience = Duration::from_secs(15 * 60);
    SagaConfig { task_patience: patience, disks_patience: patience, ..quick() }
}

async fn running(rig: &Rig) -> ApplicationId {
    let (app, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    app
}

/// The next call with this effect fails, so that its step is tried again after a look at the tasks.
fn fail_once(rig: &Rig, effect: &str) {
    let refused = Fault::Status { status: 595, reason: None, after_effect: false };
    rig.simulator.faults().add(FaultRule::once(effect, refused)).unwrap();
}

/// Waits for the first event of this type whose text contains all of these.
async fn event(rig: &Rig, kind: &str, said: &[&str]) -> Recorded {
    let mut head = rig.store.watch_head();
    loop {
        let wanted = |event: &Recorded| {
            event.event_type == kind && said.iter().all(|said| event.payload.contains(said))
        };
        if let Some(event) = rig.events().await.into_iter().find(wanted) {
            return event;
        }
        let moved = tokio::time::timeout(SOON, head.changed()).await;
        moved.unwrap_or_else(|_| panic!("no {kind} with {said:?}")).unwrap();
    }
}

/// How often Proxmox was asked to end a task.
fn aborts(rig: &Rig) -> usize {
    let seen = rig.simulator.requests_seen().requests;
    let asked = |path: &str| path.contains("/tasks/UPID");
    seen.iter().filter(|request| request.method == "DELETE" && asked(&request.path)).count()
}

/// A console is open for hours, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_console_holds_up_nothing_and_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), patient()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    let mut consoles = Vec::new();
    for kind in ["vncproxy", "termproxy", "spiceproxy"] {
        consoles.push(rig.simulator.plant_task(104, kind).unwrap());
    }
    fail_once(&rig, "container.destroy");
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    assert_eq!(aborts(&rig), 0);
    for console in consoles {
        assert!(rig.simulator.stop_task(&console).await, "{console} was still open");
    }
    runner.stop().await;
}

/// A migration or a backup that somebody began is waited for, and is not ours to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anothers_task_is_waited_for_and_named_and_never_ended() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    let migration = rig.simulator.plant_task(104, "vzmigrate").unwrap();
    fail_once(&rig, "container.start");
    let restart = rig.begin(&app, Kind::Restart).await;
    let said = ["a task of root@pam still runs on node pve1: vzmigrate", "retryable"];
    event(&rig, "operation.step_failed", &said).await;
    assert_eq!(aborts(&rig), 0);
    assert!(rig.simulator.stop_task(&migration).await, "it was still running");
    assert_eq!(rig.ended(restart, SOON).await, "done");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_waits_for_anothers_task_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), patient()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    let backup = rig.simulator.plant_task(104, "vzdump").unwrap();
    fail_once(&rig, "container.start");
    let restart = rig.begin(&app, Kind::Restart).await;
    event(&rig, "operation.step_intended", &["\"attempt\":2", "\"start\""]).await;
    let mut unit = Unit::new(&rig.store, Actor::system("test").metadata("operation.cancel"));
    let cancel = Op::Cancel { by: UserId(1), reason: "not wanted".to_owned() };
    unit.apply::<Operation>(&restart.to_string(), cancel).await.unwrap();
    unit.commit().await.unwrap();
    event(&rig, "operation.unwinding_began", &["cancelled: not wanted"]).await;
    assert!(rig.simulator.stop_task(&backup).await, "it was still running");
    assert_eq!(rig.ended(restart, SOON).await, "undone");
    assert_eq!(aborts(&rig), 0);
    assert_eq!(rig.simulator.ledger().container(104).unwrap().status, "running");
    runner.stop().await;
}

/// Backs every container of the node up, as an administrator's nightly job does; the job's id.
async fn back_up_all(rig: &Rig) -> String {
    // It installs what every other client needs, too.
    drop(proximity_tests::http::plain());
    let host = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    let at = format!("https://{}/api2/json", rig.simulator.address());
    let password = rig.simulator.root_password();
    let login = host
        .post(format!("{at}/access/ticket"))
        .form(&[("username", "root@pam"), ("password", password)]);
    let session: Value = login.send().await.unwrap().json().await.unwrap();
    let said = |name: &str| session["data"][name].as_str().unwrap().to_owned();
    let job = host
        .post(format!("{at}/nodes/pve1/vzdump"))
        .header("Cookie", format!("PVEAuthCookie={}", said("ticket")))
        .header("CSRFPreventionToken", said("CSRFPreventionToken"))
        .form(&[("all", "1"), ("storage", "local")]);
    let started: Value = job.send().await.unwrap().json().await.unwrap();
    let upid = started["data"].as_str().unwrap().to_owned();
    assert!(upid.contains(":vzdump::root@pam:"), "it names no guest: {upid}");
    let locked = || rig.simulator.ledger().container(104).unwrap().config.contains_key("lock");
    while !locked() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upid
}

/// The job hangs while it has the container, whose number its task does not name.
async fn hanging_job(rig: &Rig) -> String {
    let hangs = Fault::TaskNeverEnds { after_effect: false };
    rig.simulator.faults().add(FaultRule::once("backup.create", hangs)).unwrap();
    back_up_all(rig).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_over_several_guests_is_waited_for_while_it_has_the_container() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), patient()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    for kind in [Kind::Backup, Kind::Delete] {
        hanging_job(&rig).await;
        let operation = match kind {
            Kind::Backup => rig.back_up_as(&app, BackupId(1)).await,
            kind => rig.begin(&app, kind).await,
        };
        event(&rig, "operation.step_failed", &["lock", "retryable"]).await;
        // Time enough for all tries, were it not waited for.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (state, _) = load::<Operation>(&rig.store, &operation.to_string()).await.unwrap();
        assert!(
            state.progress().is_some_and(|now| now.phase == Phase::Forward),
            "{kind:?}: {state:?}"
        );
        rig.simulator.clear_faults();
        assert_eq!(rig.ended(operation, SOON).await, "done", "{kind:?}");
    }
    assert_eq!(aborts(&rig), 0);
    runner.stop().await;
}

/// Nothing of it was begun, so there is nothing to take back, whatever stands under another's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_never_began_is_undone_under_anothers_lock() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    let job = hanging_job(&rig).await;
    let backup = rig.back_up_as(&app, BackupId(1)).await;
    assert_eq!(rig.ended(backup, SOON).await, "undone");
    event(&rig, "operation.step_failed", &["a task of root@pam still runs", &job]).await;
    assert!(rig.simulator.stop_task(&job).await, "it was still running");
    // A lock that nobody works under is left over, and not by this one.
    rig.simulator.edit_container(104, "lock", Some("backup")).unwrap();
    let backup = rig.back_up_as(&app, BackupId(2)).await;
    assert_eq!(rig.ended(backup, SOON).await, "undone");
    assert_eq!(aborts(&rig), 0);
    runner.stop().await;
}

const TODO: &str = "on node pve1 run `pct unlock 104 && pct destroy 104 --purge`, then resume";

/// Its disks are gone, and all that is left is the lock.
fn is_half_destroyed(rig: &Rig) {
    let ledger = rig.simulator.ledger();
    assert_eq!(ledger.container(104).unwrap().lock.as_deref(), Some("destroyed"));
    assert!(ledger.disks.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_whose_destruction_was_broken_off_says_how_to_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator
        .faults()
        .add(FaultRule::once("container.destroy", Fault::TaskDiesMidway))
        .unwrap();
    let deletion = rig.begin(&app, Kind::Delete).await;
    for _ in 0..2 {
        assert_eq!(rig.ended(deletion, SOON).await, "stuck");
        is_half_destroyed(&rig);
        let events = rig.events().await;
        let stuck = events.iter().rfind(|event| event.event_type == "operation.stuck").unwrap();
        assert!(stuck.payload.contains(&format!("\"instructions\":\"{TODO}")), "{stuck:?}");
        assert!(!stuck.payload.contains("marker"), "{stuck:?}");
        // Resumed too early, it says the same again.
        let stuck_at = rig.events().await.len();
        rig.resume(deletion, "cleaned up").await;
        while rig.events().await.len() < stuck_at + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(rig.ended(deletion, SOON).await, "stuck");
    rig.simulator.remove_container(104).await.unwrap();
    rig.resume(deletion, "cleaned up").await;
    assert_eq!(rig.ended(deletion, SOON).await, "done");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_whose_undoing_was_broken_off_is_not_taken_for_undone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    let faults = rig.simulator.faults();
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    faults.add(FaultRule::forever("container.start", refused)).unwrap();
    faults.add(FaultRule::once("container.destroy", Fault::TaskDiesMidway)).unwrap();
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(deployment, SOON).await, "stuck");
    is_half_destroyed(&rig);
    event(&rig, "operation.stuck", &["its destruction was broken off", TODO]).await;
    rig.simulator.remove_container(104).await.unwrap();
    rig.resume(deployment, "cleaned up").await;
    assert_eq!(rig.ended(deployment, SOON).await, "undone");
    runner.stop().await;
}

/// The lock alone does not say whose it was, so it is not claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_has_half_destroyed_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    rig.register().await;
    let runner = rig.run(None);
    let app = running(&rig).await;
    rig.simulator.power_container(104, false).await.unwrap();
    rig.simulator.edit_container(104, "description", None).unwrap();
    rig.simulator.edit_container(104, "lock", Some("destroyed")).unwrap();
    // While the destruction goes on, nothing is concluded from a container without a name.
    let destruction = rig.simulator.plant_task(104, "vzdestroy").unwrap();
    let reconciler = rig.reconciler();
    let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
    assert_eq!((found.changed, found.discrepancies), (vec![], vec![]));
    rig.simulator.stop_task(&destruction).await;

    let before = rig.simulator.ledger();
    let deletion = rig.begin(&app, Kind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "undone");
    event(&rig, "operation.undone", &["does not carry the marker of this application"]).await;
    assert_eq!(rig.simulator.ledger(), before);
    let (state, _) = load::<Application>(&rig.store, app.as_str()).await.unwrap();
    assert!(state.live().is_some());
    runner.stop().await;
}

/// The task of a copy goes by the number of its source, and what it makes says nobody's name at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_waits_for_anothers_copy_under_its_number_and_takes_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), patient()).await;
    let runner = rig.run(None);
    let hand = &rig.simulator;
    hand.plant_container(Foreign { vmid: Some(900), ..Foreign::default() }).await.unwrap();
    let lock = Some("create".to_owned());
    let copy = Foreign { vmid: Some(104), lock, ..Foreign::default() };
    hand.plant_container(copy).await.unwrap();
    for key in ["hostname", "rootfs"] {
        hand.edit_container(104, key, None).unwrap();
    }
    let copying = hand.plant_task(900, "vzclone").unwrap();
    let (_, deployment) = rig.deploy("web", 104, 8100).await;
    event(&rig, "operation.step_intended", &["\"attempt\":2", "\"create_container\""]).await;
    hand.edit_container(104, "hostname", Some("theirs")).unwrap();
    let before = hand.ledger().container(104).unwrap().clone();
    assert!(hand.stop_task(&copying).await, "it was still running");
    assert_eq!(rig.ended(deployment, SOON).await, "done");
    event(&rig, "operation.plan_changed", &[]).await;
    assert_eq!(*hand.ledger().container(104).unwrap(), before);
    assert_eq!(aborts(&rig), 0);
    runner.stop().await;
}
