//! A thousand deployments, a third of them hit by faults: what ends by itself is survived, nothing leaks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use proximity_simulator::{Fault, FaultRule, Times, When};
use proximity_tests::checker;
use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::lab::{CLUSTER, Lab};
use serde_json::json;

/// Deployments.
const COUNT: usize = 1_000;

/// Faults that end by themselves, each on a share of the calls that matter to a deployment.
fn transient() -> Vec<FaultRule> {
    let some = |effect: &str, probability: f64, fault: Fault| FaultRule {
        when: When {
            effect: Some(effect.to_owned()),
            probability: Some(probability),
            ..When::default()
        },
        times: Times::Forever,
        fault,
    };
    let status = |status: u16| Fault::Status { status, reason: None, after_effect: false };
    vec![
        some("container.create", 0.05, Fault::NoReplyAfterEffect),
        some("container.create", 0.04, status(596)),
        some("container.create", 0.04, Fault::CutMidBody),
        some("container.create", 0.04, Fault::WrongTypes),
        some("container.create", 0.03, Fault::NoReplyBeforeEffect),
        some("container.create", 0.03, Fault::AppliedTwice { second_answer: true }),
        some("container.start", 0.05, Fault::NoReplyAfterEffect),
        some("container.start", 0.04, status(595)),
        some("container.start", 0.04, status(500)),
        some("container.start", 0.03, Fault::TaskDies { after_effect: false }),
    ]
}

/// A refusal for good: the deployments that it hits are undone.
fn permanent() -> FaultRule {
    let reason = Some("Permission check failed (/vms, VM.Allocate)".to_owned());
    FaultRule {
        when: When {
            effect: Some("container.create".to_owned()),
            probability: Some(0.04),
            ..When::default()
        },
        times: Times::Forever,
        fault: Fault::Status { status: 403, reason, after_effect: false },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_deployments_under_faults_leave_nothing_behind() {
    let lab = Lab::new(Kind::Sqlite, 4).await;
    let (server, client) = lab.start().await;
    for rule in transient().into_iter().chain([permanent()]) {
        lab.simulator.faults().add(rule).unwrap();
    }
    let started = Instant::now();
    let mut accepted = 0;
    for number in 0..COUNT {
        let body = json!({ "catalog_id": "alpine", "hostname": format!("many-{number}") });
        let answer = client.post("/api/apps/", body).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        accepted += 1;
    }
    let accepting = started.elapsed();
    lab.settle(&client, Duration::from_secs(900)).await;
    let struck = lab.simulator.faults().fired();
    lab.simulator.faults().clear();
    let mut found = lab.check().await;
    let stuck = found.stuck.len();
    for id in found.stuck.clone() {
        let note = json!({ "note": "the fault is gone" });
        client.post(&format!("/api/operations/{id}/resume"), note).await.ok();
    }
    lab.settle(&client, Duration::from_secs(120)).await;
    found = lab.check().await;
    figure!(
        "{COUNT} deployments, {accepted} accepted in {:.1} s, {struck} faults struck: {} running, {} undone, \
         {stuck} stuck before a resume, {} after; {} leases of {} live applications, {} anomalies, {:.0} s in all",
        accepting.as_secs_f64(),
        found.live.len(),
        found.failed.len(),
        found.stuck.len(),
        found.held.len(),
        found.live.len(),
        found.anomalies.len(),
        started.elapsed().as_secs_f64(),
    );
    assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
    assert!(found.stuck.is_empty(), "{:?}", found.stuck);
    assert!(struck >= COUNT as u64 / 3, "only {struck} faults struck");
    assert!(!found.failed.is_empty(), "no deployment was refused for good");
    assert!(found.live.len() >= 900, "{} run", found.live.len());
    assert_eq!(found.live.len() + found.failed.len(), COUNT);

    // The checker finds a leak that was planted: in the cluster, and in the log.
    let mut guests = lab.guests();
    guests.insert(format!("{CLUSTER}/999999"));
    let events = lab.events().await;
    let leak = checker::check(&events, &guests);
    assert!(leak.anomalies.iter().any(|line| line.contains("999999")), "{:?}", leak.anomalies);
    let unreleased: Vec<_> =
        events.iter().filter(|event| event.event_type != "lease.released").cloned().collect();
    let leak = checker::check(&unreleased, &lab.guests());
    assert!(leak.anomalies.iter().any(|line| line.contains("is not live")));
    server.terminate();
}
