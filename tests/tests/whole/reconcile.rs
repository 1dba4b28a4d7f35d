//! What is done by hand on Proxmox, as the reconciler sees it: recorded, removed or reported, and
//! never a stranger's container touched.

use std::collections::BTreeMap;
use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::saga::SagaConfig;
use proximity_domain::host::DiscrepancyKind;
use proximity_domain::lease::Lease;
use proximity_domain::plan::{Kind as OperationKind, RestoreWay};
use proximity_simulator::{Fault, FaultRule, Foreign, Times, When};
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::http::Client;
use proximity_tests::lab::Lab;
use proximity_tests::process::Server;
use proximity_tests::rig::{CLUSTER, HOST, Rig, quick};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// A server with some applications that run.
struct Field {
    lab: Lab,
    server: Server,
    client: Client,
    /// Id and number, by host name.
    apps: BTreeMap<String, (String, u32)>,
}

impl Field {
    /// How many events there are, but for those that say who asked for a look and with what.
    async fn concluded(&self) -> usize {
        let asked = ["admin_action", "secret_use"];
        let events = self.lab.events().await;
        events.iter().filter(|event| !asked.contains(&event.aggregate_type.as_str())).count()
    }

    async fn new(kind: Kind, names: &[&str]) -> Self {
        let lab = Lab::new(kind, 2).await;
        let (server, client) = lab.start().await;
        for name in names {
            let body = json!({ "catalog_id": "alpine", "hostname": name, "node": "pve1" });
            client.post("/api/apps/", body).await.ok();
        }
        lab.settle(&client, SOON).await;
        let mut field = Self { lab, server, client, apps: BTreeMap::new() };
        for app in field.client.get("/api/apps/").await.ok()["apps"].as_array().unwrap() {
            assert_eq!(app["status"], "running", "{app}");
            let vmid = u32::try_from(app["vmid"].as_u64().unwrap()).unwrap();
            let id = app["id"].as_str().unwrap().to_owned();
            field.apps.insert(app["hostname"].as_str().unwrap().to_owned(), (id, vmid));
        }
        field
    }

    fn id(&self, name: &str) -> &str {
        &self.apps[name].0
    }

    fn vmid(&self, name: &str) -> u32 {
        self.apps[name].1
    }

    async fn app(&self, name: &str) -> Value {
        self.client.get(&format!("/api/apps/{}", self.id(name))).await.ok()
    }

    /// One look, whether or not the one of every minute was faster.
    async fn reconcile(&self) -> Value {
        self.client.post("/api/proxmox/hosts/1/reconcile", json!({})).await.ok()
    }

    async fn delete(&self, name: &str) {
        self.client.delete(&format!("/api/apps/{}", self.id(name))).await.ok();
        self.lab.settle(&self.client, SOON).await;
    }

    fn description(&self, vmid: u32) -> String {
        self.lab.simulator.ledger().container(vmid).unwrap().config["description"].clone()
    }

    fn there(&self, vmid: u32) -> bool {
        self.lab.simulator.ledger().container(vmid).is_some()
    }
}

fn kinds(answer: &Value) -> Vec<(u64, String)> {
    let found = answer["discrepancies"].as_array().unwrap().iter();
    found.map(|d| (d["vmid"].as_u64().unwrap(), d["kind"].as_str().unwrap().to_owned())).collect()
}

/// A stopped container under this number that carries a marker of ours.
fn marked(vmid: u32, marker: String) -> Foreign {
    Foreign { vmid: Some(vmid), description: Some(marker), ..Foreign::default() }
}

async fn what_was_done_by_hand(kind: Kind) {
    let field = Field::new(kind, &["stopped", "moved", "gone", "renamed", "left"]).await;
    let hand = &field.lab.simulator;
    hand.power_container(field.vmid("stopped"), false).await.unwrap();
    hand.move_container(field.vmid("moved"), "pve2").unwrap();
    hand.remove_container(field.vmid("gone")).await.unwrap();
    hand.edit_container(field.vmid("renamed"), "hostname", Some("mine")).unwrap();

    let answer = field.reconcile().await;
    assert_eq!(answer["inconclusive"], Value::Null);
    let renamed = vec![(field.vmid("renamed").into(), "renamed".to_owned())];
    assert_eq!(kinds(&answer), renamed, "{answer}");
    assert_eq!(field.app("stopped").await["status"], "stopped");
    let moved = field.app("moved").await;
    assert_eq!((&moved["status"], &moved["node"]), (&json!("running"), &json!("pve2")));
    let gone = field.app("gone").await;
    assert_eq!(gone["status"], "error");
    assert!(gone["problem"].as_str().unwrap().contains("is gone from Proxmox"), "{gone}");
    assert_eq!(field.app("left").await["status"], "running");

    let again = field.reconcile().await;
    assert_eq!((&again["changed"], &again["removals"]), (&json!([]), &json!([])), "{again}");
    let listed = field.client.get("/api/proxmox/hosts/1/discrepancies").await.ok();
    assert_eq!(kinds(&listed), renamed);

    // What is known counts: a moved application is stopped where it is, a lost one can only be deleted.
    let stop = json!({ "action": "stop" });
    field.client.post(&format!("/api/apps/{}/action", field.id("moved")), stop).await.ok();
    field.lab.settle(&field.client, SOON).await;
    assert_eq!(field.app("moved").await["status"], "stopped");
    let start = json!({ "action": "start" });
    let path = format!("/api/apps/{}/action", field.id("gone"));
    let refused = field.client.post(&path, start).await;
    assert_eq!(refused.code(), "application.container_missing");
    field.delete("gone").await;
    assert_eq!(field.client.get(&format!("/api/apps/{}", field.id("gone"))).await.status, 404);

    // Put right by hand, it is right here too.
    hand.power_container(field.vmid("stopped"), true).await.unwrap();
    hand.edit_container(field.vmid("renamed"), "hostname", Some("renamed")).unwrap();
    let answer = field.reconcile().await;
    assert_eq!(kinds(&answer), []);
    assert_eq!(field.app("stopped").await["status"], "running");
    figure!(
        "{kind:?}: a container stopped, moved, removed, renamed by hand: each seen in one look, 0 more events in the next"
    );
    field.server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_by_hand_is_seen_and_counts_from_then_on_on_sqlite() {
    what_was_done_by_hand(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_by_hand_is_seen_and_counts_from_then_on_on_postgres() {
    what_was_done_by_hand(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_concluded_from_a_host_that_cannot_be_read_or_lists_nothing() {
    let field = Field::new(Kind::Sqlite, &["one", "two"]).await;
    let before = field.concluded().await;
    let always = |path: &str, fault: Fault| FaultRule {
        when: When { path: Some(path.to_owned()), ..When::default() },
        times: Times::Forever,
        fault,
    };
    let simulator = &field.lab.simulator;
    // Really gone, so that only the way it is told can keep it from being concluded.
    simulator.remove_container(field.vmid("one")).await.unwrap();
    let refused = Fault::Status { status: 595, reason: None, after_effect: false };
    let resources = "^/cluster/resources";
    for fault in [refused, Fault::NullData, Fault::WrongTypes, Fault::CutMidBody, Fault::HtmlPage] {
        simulator.faults().add(always(resources, fault.clone())).unwrap();
        let answer = field.client.post("/api/proxmox/hosts/1/reconcile", json!({})).await;
        assert!(
            answer.status.is_server_error() || answer.status == 502,
            "{fault:?}: {}",
            answer.body
        );
        simulator.clear_faults();
    }
    simulator.faults().add(always(resources, Fault::EmptyList)).unwrap();
    let answer = field.reconcile().await;
    assert_eq!(answer["inconclusive"], "it lists no guest at all");
    simulator.clear_faults();
    // A task about it runs, or whether one does cannot be told.
    simulator.faults().add(always("/tasks$", Fault::NullData)).unwrap();
    field.reconcile().await;
    simulator.clear_faults();
    for name in ["one", "two"] {
        assert_eq!(field.app(name).await["status"], "running");
    }
    assert_eq!(field.concluded().await, before, "no event came of it");
    field.reconcile().await;
    assert_eq!(field.app("one").await["status"], "error", "now it is told");
    field.server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_up_under_a_number_that_was_seen_free_is_reported_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), SagaConfig { quarantine: Duration::ZERO, ..quick() }).await;
    let runner = rig.run(None);
    rig.register().await;
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    let ledger = rig.simulator.ledger();
    let description = ledger.container(104).unwrap().config["description"].clone();
    assert_eq!(rig.ended(rig.begin(&web, OperationKind::Delete).await, SOON).await, "done");
    let number = format!("vmid/{CLUSTER}/104");
    rig.until_lease(&number, SOON, |lease| *lease == Lease::Free).await;

    // As `pct restore` of an old archive makes it: with the description that the archive holds.
    rig.simulator.plant_container(marked(104, description)).await.unwrap();
    let reconciler = rig.reconciler();
    for _ in 0..2 {
        let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
        assert_eq!(found.removals, []);
        let [orphan] = &*found.discrepancies else { panic!("{found:?}") };
        assert_eq!((orphan.kind, &orphan.application), (DiscrepancyKind::Orphan, &web));
    }
    assert!(rig.simulator.ledger().container(104).is_some());
    rig.simulator.remove_container(104).await.unwrap();
    let stranger = rig.simulator.plant_container(Foreign::default()).await.unwrap();
    let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
    assert_eq!((found.discrepancies, stranger), (vec![], 100), "it is gone from the report");
    runner.stop().await;
}

/// What somebody has decided to keep is no leftover, whatever else becomes of its application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_container_of_an_operation_that_was_given_up_is_reported_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    let reconciler = rig.reconciler();
    let refused = Fault::Status { status: 403, reason: None, after_effect: false };
    let always = FaultRule::forever("container.destroy", refused);
    let orphans = async |numbers: &[u32]| {
        let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
        assert_eq!(found.removals, []);
        let seen = found.discrepancies.iter().map(|orphan| {
            assert_eq!(orphan.kind, DiscrepancyKind::Orphan);
            orphan.vmid.get()
        });
        assert_eq!(seen.collect::<Vec<_>>(), numbers);
    };

    // A deletion.
    let (mail, operation) = rig.deploy("mail", 120, 8120).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    rig.simulator.faults().add(always.clone()).unwrap();
    let deletion = rig.begin(&mail, OperationKind::Delete).await;
    assert_eq!(rig.ended(deletion, SOON).await, "stuck");
    rig.abandon(deletion, "it is kept").await;
    rig.simulator.clear_faults();
    orphans(&[120]).await;

    // A restore whose old container was kept; later the application is deleted.
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    rig.simulator.faults().add(always).unwrap();
    let restore = rig.restore(&web, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "stuck");
    rig.abandon(restore, "its data are kept").await;
    rig.simulator.clear_faults();
    orphans(&[104, 120]).await;
    assert_eq!(rig.ended(rig.begin(&web, OperationKind::Delete).await, SOON).await, "done");
    orphans(&[104, 120]).await;
    for kept in [104, 120] {
        assert!(rig.simulator.ledger().container(kept).is_some());
    }
    runner.stop().await;
}

/// A deployment makes nothing but a root disk: volumes of a leftover were given to it by somebody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leftover_with_volumes_that_its_application_never_had_stays_until_they_are_gone() {
    let field = Field::new(Kind::Sqlite, &["web"]).await;
    let (hand, web) = (&field.lab.simulator, field.vmid("web"));
    let marker = field.description(web);
    field.delete("web").await;
    hand.plant_container(marked(web, marker)).await.unwrap();
    hand.add_volume(web, "mp0", "mp=/data", 1 << 30).unwrap();
    let answer = field.reconcile().await;
    assert_eq!(answer["removals"], json!([]), "{answer}");
    assert_eq!(kinds(&answer), [(web.into(), "orphan".to_owned())]);
    let advice = answer["discrepancies"][0]["advice"].as_str().unwrap();
    let by_hand = format!("`pct set {web} --protection 0 && pct destroy {web}` on node pve1");
    assert!(advice.contains(&by_hand), "{advice}");
    hand.edit_container(web, "mp0", None).unwrap();
    field.reconcile().await;
    field.lab.settle(&field.client, SOON).await;
    assert!(!field.there(web));
    field.server.terminate();
}

/// What a restore has made is judged like what a deployment has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_the_leftover_of_a_restore_stays_while_it_has_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), quick()).await;
    let runner = rig.run(None);
    rig.register().await;
    let (web, operation) = rig.deploy("web", 104, 8100).await;
    assert_eq!(rig.ended(operation, SOON).await, "done");
    assert_eq!(rig.ended(rig.back_up(&web).await, SOON).await, "done");
    let restore = rig.restore(&web, RestoreWay::Swap, |_| {}).await;
    assert_eq!(rig.ended(restore, SOON).await, "done");
    let description = rig.simulator.ledger().containers[0].config["description"].clone();
    let vmid = rig.simulator.ledger().containers[0].vmid;
    assert_eq!(rig.ended(rig.begin(&web, OperationKind::Delete).await, SOON).await, "done");

    rig.simulator.plant_container(marked(vmid, description)).await.unwrap();
    rig.simulator.add_volume(vmid, "mp0", "mp=/data", 1 << 30).unwrap();
    let reconciler = rig.reconciler();
    let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
    assert_eq!(found.removals, []);
    assert_eq!(found.discrepancies[0].kind, DiscrepancyKind::Orphan);
    rig.simulator.edit_container(vmid, "mp0", None).unwrap();
    let found = reconciler.reconcile(HOST, &Actor::system("test")).await.unwrap();
    assert_eq!(rig.ended(found.removals[0], SOON).await, "done");
    assert!(rig.simulator.ledger().container(vmid).is_none());
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_what_was_deleted_go_and_what_a_person_made_stays() {
    let field = Field::new(Kind::Sqlite, &["late", "taken", "kept"]).await;
    let hand = &field.lab.simulator;
    let (late, taken) = (field.vmid("late"), field.vmid("taken"));
    let (marker, other) = (field.description(late), field.description(field.vmid("kept")));
    field.delete("late").await;
    assert!(!field.there(late));

    // What Proxmox makes after all, when everybody has given it up.
    let leftover = Foreign {
        hostname: Some("late".to_owned()),
        running: true,
        config: BTreeMap::from([("protection".to_owned(), "1".to_owned())]),
        ..marked(late, marker)
    };
    hand.plant_container(leftover).await.unwrap();
    // Strangers: one without any marker and our application's name, one with a copied marker, one
    // under a number that was ours.
    let namesake =
        Foreign { hostname: Some("kept".to_owned()), running: true, ..Foreign::default() };
    let namesake = hand.plant_container(namesake).await.unwrap();
    let copied = Foreign { description: Some(other), ..Foreign::default() };
    let copied = hand.plant_container(copied).await.unwrap();
    hand.remove_container(taken).await.unwrap();
    let stranger = Foreign { vmid: Some(taken), running: true, ..Foreign::default() };
    hand.plant_container(stranger).await.unwrap();
    let strangers = [namesake, copied, taken];
    let planted = hand.journal().last().unwrap().seq;
    let before: Vec<_> = strangers.map(|vmid| hand.ledger().container(vmid).cloned()).into();

    let answer = field.reconcile().await;
    field.lab.settle(&field.client, SOON).await;
    assert!(!field.there(late), "{answer}");
    assert_eq!(kinds(&field.reconcile().await), [(taken.into(), "stranger".to_owned())]);
    let lost = field.app("taken").await;
    assert!(lost["problem"].as_str().unwrap().contains("another guest has its number"), "{lost}");
    assert_eq!(field.app("kept").await["status"], "running");

    // Its application can be deleted, and leaves the stranger alone.
    field.delete("taken").await;
    let answer = field.client.get(&format!("/api/apps/{}", field.id("taken"))).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert_eq!(kinds(&field.reconcile().await), []);
    let after: Vec<_> = strangers.map(|vmid| hand.ledger().container(vmid).cloned()).into();
    assert_eq!(before, after);
    let touched: Vec<_> = hand
        .journal()
        .into_iter()
        .filter(|effect| effect.seq > planted)
        .filter(|effect| effect.vmid.is_some_and(|vmid| strangers.contains(&vmid)))
        .collect();
    assert_eq!(touched, [], "a stranger's container was touched");
    // The removal is an operation like any other, with its owner, and counted once.
    let removals = field.client.get("/api/operations").await.ok();
    let of_late =
        removals["operations"].as_array().unwrap().iter().filter(|operation| {
            operation["kind"] == "delete" && operation["app"] == field.id("late")
        });
    assert_eq!(of_late.count(), 2, "{removals}");
    figure!("reconciler: 1 leftover removed, 1 lost application deleted, 3 strangers untouched");
    field.server.terminate();
}
