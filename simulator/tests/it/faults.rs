//! Every kind of fault: what it does to the effect, and what it does to the reply.

use std::time::{Duration, Instant};

use proximity_simulator::{Fault, FaultRule, SimulatorHandle, Times, When};
use serde_json::json;

use crate::support::{ALPINE, Caller, quick};

const FORM: [(&str, &str); 2] = [("vmid", "100"), ("ostemplate", ALPINE)];

fn strike(sim: &SimulatorHandle, effect: &str, fault: Fault) {
    sim.faults().add(FaultRule::once(effect, fault)).unwrap();
}

async fn made(sim: &SimulatorHandle) -> usize {
    sim.idle().await;
    sim.ledger().containers.len()
}

fn status(status: u16, after_effect: bool) -> Fault {
    Fault::Status { status, reason: None, after_effect }
}

#[tokio::test]
async fn an_error_reply_comes_with_or_without_the_effect() {
    for after_effect in [false, true] {
        for code in [400, 403, 500, 595, 596, 599] {
            let (sim, root) = quick().await;
            strike(&sim, "container.create", status(code, after_effect));
            let got = root.post("/nodes/pve1/lxc", &FORM).await;
            assert_eq!(got.status, code);
            assert_eq!(got.text.is_empty(), code >= 595, "pseudo codes have no body: {got:?}");
            assert_eq!(made(&sim).await, usize::from(after_effect), "{code} {after_effect}");
            assert_eq!(sim.faults().fired(), 1);
        }
    }
    let (sim, root) = quick().await;
    let reason = Some("CT is locked (disk)".to_owned());
    strike(&sim, "container.list", Fault::Status { status: 500, reason, after_effect: false });
    root.get("/nodes/pve1/lxc").await.refused(500, "CT is locked (disk)");
}

#[tokio::test]
async fn a_lost_reply_may_hide_an_effect() {
    for (fault, effects) in
        [(Fault::NoReplyBeforeEffect, 0), (Fault::NoReplyAfterEffect, 1), (Fault::CutMidBody, 1)]
    {
        let (sim, root) = quick().await;
        strike(&sim, "container.create", fault.clone());
        assert!(root.try_post("/nodes/pve1/lxc", &FORM).await.is_err(), "{fault:?}");
        assert_eq!(made(&sim).await, effects, "{fault:?}");
        // A dropped GET may be repeated by the client itself; this one is not dropped.
        assert_eq!(root.get("/nodes/pve1/lxc").await.data().as_array().unwrap().len(), effects);
    }
}

#[tokio::test]
async fn a_call_that_is_applied_twice_answers_for_its_first_or_second_run() {
    let (sim, root) = quick().await;
    strike(&sim, "container.create", Fault::AppliedTwice { second_answer: false });
    let first = root.post("/nodes/pve1/lxc", &FORM).await;
    assert_eq!(root.exit(&first).await, "OK");
    strike(&sim, "container.create", Fault::AppliedTwice { second_answer: true });
    let second = root.post("/nodes/pve1/lxc", &[("vmid", "101"), ("ostemplate", ALPINE)]).await;
    second.refused(500, "CT 101 already exists on node 'pve1'");
    assert_eq!(made(&sim).await, 2);
    strike(&sim, "container.start", Fault::AppliedTwice { second_answer: false });
    let start = root.post("/nodes/pve1/lxc/100/status/start", &[]).await;
    assert_eq!(root.exit(&start).await, "OK");
    sim.idle().await;
    let starts = sim.journal().iter().filter(|effect| effect.what == "container.started").count();
    assert_eq!(starts, 1, "the second task found it running");
}

#[tokio::test]
async fn a_reply_can_be_of_the_wrong_shape_after_the_effect() {
    let (sim, root) = quick().await;
    let list = async |fault: Fault| {
        strike(&sim, "container.list", fault);
        root.get("/nodes/pve1/lxc").await
    };
    root.container(100, &[]).await;
    assert!(list(Fault::WrongTypes).await.body["data"].is_object());
    let html = list(Fault::HtmlPage).await;
    assert!(html.status == 200 && html.text.starts_with("<!DOCTYPE html>"), "{html:?}");
    let broken = list(Fault::MalformedJson).await;
    assert!(serde_json::from_str::<serde_json::Value>(&broken.text).is_err());
    assert_eq!(list(Fault::NullData).await.text, r#"{"data":null}"#);
    assert_eq!(list(Fault::EmptyList).await.text, r#"{"data":[]}"#);
    assert_eq!(list(Fault::HugeReply { bytes: 3_000_000 }).await.text.len(), 3_000_011);
    strike(&sim, "container.create", Fault::WrongTypes);
    let form = [("vmid", "101"), ("ostemplate", ALPINE)];
    assert_eq!(root.post("/nodes/pve1/lxc", &form).await.body["data"], json!(42));
    assert_eq!(made(&sim).await, 2);
}

#[tokio::test]
async fn a_good_credential_can_be_refused_midway() {
    let (sim, root) = quick().await;
    strike(&sim, "container.create", Fault::Unauthorized);
    let got = root.post("/nodes/pve1/lxc", &FORM).await;
    assert_eq!(
        (got.status, got.reason.as_str(), got.text.as_str()),
        (401, "Authentication failed!", "")
    );
    assert_eq!(made(&sim).await, 0);
    strike(&sim, "container.create", Fault::Slow { ms: 200 });
    let asked = Instant::now();
    assert_eq!(root.post("/nodes/pve1/lxc", &FORM).await.status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(200));
}

async fn create_struck(fault: Fault) -> (SimulatorHandle, Caller, String) {
    let (sim, root) = quick().await;
    strike(&sim, "container.create", fault);
    let created = root.post("/nodes/pve1/lxc", &FORM).await;
    let upid = created.data().as_str().unwrap().to_owned();
    (sim, root, upid)
}

#[tokio::test]
async fn a_task_can_end_badly_before_and_after_its_work() {
    let (sim, root, upid) = create_struck(Fault::TaskWarns).await;
    assert_eq!(root.exit_of(&upid).await, "WARNINGS: 1");
    assert_eq!(root.log(&upid).await.last().unwrap(), "TASK WARNINGS: 1");
    assert_eq!(made(&sim).await, 1);

    let (sim, root, upid) = create_struck(Fault::TaskDies { after_effect: false }).await;
    assert_eq!(root.exit_of(&upid).await, "unexpected status");
    assert_eq!(sim.ledger().container(100).unwrap().lock.as_deref(), Some("create"));
    root.delete("/nodes/pve1/lxc/100").await.refused(500, "CT is locked (create)");
    // Its disk is there, named by nothing; without the configuration it counts as a virtual machine's.
    let listed = async |content: &str| {
        let path = format!("/nodes/pve1/storage/local/content?content={content}");
        root.get(&path).await.data().as_array().unwrap().len()
    };
    assert_eq!((listed("rootdir").await, listed("images").await), (1, 0));
    sim.edit_container(100, "lock", None).unwrap();
    sim.remove_container(100).await.unwrap();
    assert_eq!((listed("rootdir").await, listed("images").await), (0, 1));

    let (sim, root, upid) = create_struck(Fault::TaskDies { after_effect: true }).await;
    assert_eq!(root.exit_of(&upid).await, "unexpected status");
    assert_eq!(sim.ledger().container(100).unwrap().lock, None);

    let text = "disk full".to_owned();
    let fault = Fault::TaskFails { text: text.clone(), after_effect: false };
    let (sim, root, upid) = create_struck(fault).await;
    assert_eq!(root.exit_of(&upid).await, "unable to create CT 100 - disk full");
    assert_eq!(made(&sim).await, 0);

    let (sim, root, upid) = create_struck(Fault::TaskFails { text, after_effect: true }).await;
    assert_eq!(root.exit_of(&upid).await, "disk full");
    assert_eq!(made(&sim).await, 1);
}

#[tokio::test]
async fn a_destruction_that_dies_half_way_leaves_a_lock_without_disks() {
    let (sim, root) = quick().await;
    root.container(100, &[]).await;
    strike(&sim, "container.destroy", Fault::TaskDiesMidway);
    let got = root.delete("/nodes/pve1/lxc/100").await;
    assert_eq!(root.exit(&got).await, "unexpected status");
    let mut config = root.config(100).await;
    config.remove("digest");
    assert_eq!(json!(config), json!({"lock": "destroyed"}));
    assert!(sim.ledger().disks.is_empty());
    root.delete("/nodes/pve1/lxc/100").await.refused(500, "CT is locked (destroyed)");
    let taken = root.get("/cluster/nextid?vmid=100").await;
    assert_eq!(taken.error("vmid"), "VM 100 already exists");
}

#[tokio::test]
async fn a_hanging_task_ends_when_it_is_aborted_or_the_faults_are_cleared() {
    let (sim, root, upid) = create_struck(Fault::TaskNeverEnds { after_effect: false }).await;
    let path = format!("/nodes/pve1/tasks/{upid}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(root.get(&format!("{path}/status")).await.data()["status"], "running");
    assert_eq!(root.delete(&path).await.status, 200);
    assert_eq!(root.exit_of(&upid).await, "unable to create CT 100 - received interrupt");
    assert_eq!(made(&sim).await, 0, "an aborted create cleans up");

    let (sim, root, upid) = create_struck(Fault::TaskNeverEnds { after_effect: false }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    sim.clear_faults();
    assert_eq!(root.exit_of(&upid).await, "OK");
    assert_eq!(made(&sim).await, 1);

    let (sim, root, upid) = create_struck(Fault::TaskNeverEnds { after_effect: true }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sim.ledger().running_tasks.len(), 1);
    assert_eq!(sim.ledger().container(100).unwrap().lock, None, "the work itself is done");
    assert_eq!(root.delete(&format!("/nodes/pve1/tasks/{upid}")).await.status, 200);
    assert_eq!(root.exit_of(&upid).await, "received interrupt");
    assert_eq!(made(&sim).await, 1);
}

#[tokio::test]
async fn the_hidden_start_has_an_effect_name_of_its_own() {
    let (sim, root) = quick().await;
    let text = "lxc-start failed".to_owned();
    strike(&sim, "container.start_hidden", Fault::TaskFails { text, after_effect: false });
    let created = root
        .post("/nodes/pve1/lxc", &[("vmid", "100"), ("ostemplate", ALPINE), ("start", "1")])
        .await;
    assert_eq!(root.exit(&created).await, "OK");
    sim.idle().await;
    assert_eq!(sim.ledger().container(100).unwrap().status, "stopped");
}

#[tokio::test]
async fn a_share_of_calls_by_probability_is_the_same_for_the_same_seed() {
    let run = async |seed: u64| {
        let config = proximity_simulator::SimulatorConfig {
            seed,
            ..proximity_simulator::SimulatorConfig::quick()
        };
        let (sim, root) = crate::support::with(config).await;
        let when = When {
            probability: Some(0.33),
            path: Some("^/nodes/pve1/lxc/".to_owned()),
            ..When::default()
        };
        sim.faults()
            .add(FaultRule { when, times: Times::Forever, fault: status(596, false) })
            .unwrap();
        let mut struck = Vec::new();
        for vmid in 100..160 {
            struck.push(root.get(&format!("/nodes/pve1/lxc/{vmid}/config")).await.status == 596);
        }
        struck
    };
    let (one, same, other) = (run(5).await, run(5).await, run(6).await);
    assert_eq!(one, same);
    assert_ne!(one, other);
    let count = one.iter().filter(|struck| **struck).count();
    assert!((10..35).contains(&count), "{count} of 60");
}
