//! Logs that were written once and are read for ever: how they are made, kept, cut off, and gone on with.

mod scheduled;
mod world;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proximity_domain::OperationId;
use proximity_domain::operation::{Direction, Event as Op};
use proximity_domain::plan::{CloneWay, Kind, RestoreWay};
use proximity_eventstore::{Append, Expected, Lane, NewEvent, Recorded, StreamAppend};
use proximity_simulator::{Fault, FaultRule};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::matrix::Saga;
use crate::rig::{Rig, quick, snapshot_of};
use world::{build, stranger};

/// Within which any operation of these logs ends.
const SOON: Duration = Duration::from_secs(60);
/// Far enough away for an operation that is gone on with years later to go forward.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The kinds of logs; each is one file.
pub const LOGS: &[&str] = &[
    "life",
    "undone",
    "adopted",
    "cloned",
    "backed_up",
    "image",
    "cloned_down",
    "restored",
    "restored_over",
    "scheduled",
    "stuck",
    "cancelled",
    "renumbered",
    "backup_failed",
    "abandoned",
    "restore_abandoned",
];

/// The folder of one version of the program.
pub fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

#[derive(Serialize, Deserialize)]
struct Line(u64, String, String, u64, String, String, String, String, i64);

/// Reads a log, in the order of its positions.
pub fn read(path: &Path) -> Vec<Recorded> {
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let event = |line: &str| {
        let line: Line = serde_json::from_str(line).unwrap();
        Recorded {
            position: line.0,
            aggregate_type: line.1,
            aggregate_id: line.2,
            sequence: line.3,
            event_type: line.4,
            event_version: line.5,
            payload: line.6,
            metadata: line.7,
            recorded_at: line.8,
        }
    };
    text.lines().map(event).collect()
}

/// Writes a log; never over one that is there.
pub fn write(path: &Path, events: Vec<Recorded>) {
    let file = std::fs::File::options().write(true).create_new(true).open(path).unwrap();
    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    for e in events {
        let line = Line(
            e.position,
            e.aggregate_type,
            e.aggregate_id,
            e.sequence,
            e.event_type,
            e.event_version,
            e.payload,
            e.metadata,
            e.recorded_at,
        );
        writeln!(out, "{}", serde_json::to_string(&line).unwrap()).unwrap();
    }
    out.finish().unwrap();
}

/// Lets one kind of log happen.
pub async fn happen(name: &str) -> Vec<Recorded> {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(data.path(), quick()).await;
    rig.patience = CENTURY;
    let runner = rig.run(None);
    if name == "adopted" {
        rig.simulator.plant_container(stranger(None, true)).await.unwrap();
        let (application, adoption) = rig.adopt(104, "cell").await;
        assert_eq!(rig.ended(adoption, SOON).await, "done");
        let release = rig.begin(&application, Kind::Delete).await;
        assert_eq!(rig.ended(release, SOON).await, "done");
        runner.stop().await;
        return rig.events().await;
    }
    if name == "undone" {
        let refused = Fault::Status { status: 500, reason: None, after_effect: false };
        rig.simulator.faults().add(FaultRule::forever("container.start", refused)).unwrap();
    }
    if ["stuck", "abandoned"].contains(&name) {
        for effect in ["container.start", "container.destroy"] {
            let refused = Fault::Status { status: 500, reason: None, after_effect: false };
            rig.simulator.faults().add(FaultRule::forever(effect, refused)).unwrap();
        }
    }
    if name == "renumbered" {
        rig.simulator.plant_container(stranger(None, true)).await.unwrap();
    }
    let saga = if name == "image" { Saga::Image } else { Saga::Start };
    let (application, deployment) =
        rig.deploy_from("web", 104, 8_100, saga.source(), Saga::Start.health()).await;
    if name == "cancelled" {
        rig.cancel(deployment, "not wanted any more").await;
    }
    let end = match name {
        "undone" | "cancelled" => "undone",
        "stuck" | "abandoned" => "stuck",
        _ => "done",
    };
    assert_eq!(rig.ended(deployment, SOON).await, end);
    match name {
        "stuck" => {
            rig.simulator.faults().clear();
            rig.resume(deployment, "Proxmox destroys again").await;
            assert_eq!(rig.ended(deployment, SOON).await, "undone");
        }
        "abandoned" => {
            rig.abandon(deployment, "destroyed by hand").await;
            rig.simulator.faults().clear();
            rig.simulator.remove_container(104).await.unwrap();
            let (_, again) = rig.deploy("web", 105, 8_100).await;
            assert_eq!(rig.ended(again, SOON).await, "done");
        }
        "restore_abandoned" => {
            assert_eq!(rig.ended(rig.back_up(&application).await, SOON).await, "done");
            let refused = Fault::Status { status: 500, reason: None, after_effect: false };
            rig.simulator.faults().add(FaultRule::forever("container.create", refused)).unwrap();
            let restore = rig.restore(&application, RestoreWay::InPlace, |_| {}).await;
            assert_eq!(rig.ended(restore, SOON).await, "stuck");
            rig.abandon(restore, "the archive is broken").await;
            rig.simulator.faults().clear();
            let removal = rig.begin(&application, Kind::Delete).await;
            assert_eq!(rig.ended(removal, SOON).await, "done");
        }
        "backup_failed" => {
            let refused = Fault::Status { status: 500, reason: None, after_effect: false };
            rig.simulator.faults().add(FaultRule::forever("backup.create", refused)).unwrap();
            let backup = rig.back_up(&application).await;
            assert_eq!(rig.ended(backup, SOON).await, "undone");
        }
        "life" => {
            for kind in [Kind::Stop, Kind::Start, Kind::Restart, Kind::Delete] {
                let operation = rig.begin(&application, kind).await;
                assert_eq!(rig.ended(operation, SOON).await, "done");
            }
        }
        "cloned" => {
            let way = |operation| CloneWay::Snapshot { name: snapshot_of(operation) };
            let (_, clone) = rig.clone_of(&application, "copy", 105, 8_200, way).await;
            assert_eq!(rig.ended(clone, SOON).await, "done");
        }
        "cloned_down" => {
            let (_, clone) =
                rig.clone_of(&application, "copy", 105, 8_200, |_| CloneWay::Downtime).await;
            assert_eq!(rig.ended(clone, SOON).await, "done");
        }
        "image" => {
            let removal = rig.begin(&application, Kind::Delete).await;
            assert_eq!(rig.ended(removal, SOON).await, "done");
        }
        "backed_up" => {
            let backup = rig.back_up(&application).await;
            assert_eq!(rig.ended(backup, SOON).await, "done");
            let removal = rig.delete_backup(&application).await;
            assert_eq!(rig.ended(removal, SOON).await, "done");
        }
        "restored" | "restored_over" => {
            let backup = rig.back_up(&application).await;
            assert_eq!(rig.ended(backup, SOON).await, "done");
            let way = if name == "restored" { RestoreWay::Swap } else { RestoreWay::InPlace };
            let restore = rig.restore(&application, way, |_| {}).await;
            assert_eq!(rig.ended(restore, SOON).await, "done");
            let removal = rig.begin(&application, Kind::Delete).await;
            assert_eq!(rig.ended(removal, SOON).await, "done");
        }
        "scheduled" => scheduled::happen(&rig, &application).await,
        _ => {}
    }
    runner.stop().await;
    rig.events().await
}

/// The operations that are open at the end of these events, oldest first.
pub fn open(events: &[Recorded]) -> Vec<OperationId> {
    let mut open: Vec<OperationId> = Vec::new();
    for event in events.iter().filter(|event| event.aggregate_type == "operation") {
        let id: OperationId = event.aggregate_id.parse().unwrap();
        match event.event_type.as_str() {
            "operation.planned" => open.push(id),
            "operation.completed" | "operation.undone" | "operation.abandoned" => {
                open.retain(|one| *one != id)
            }
            _ => {}
        }
    }
    open
}

/// Whether the operation waits for a person at the end of these events, or has failed for the last time to
/// go back, or to do what cannot be taken back.
fn may_be_stuck(events: &[Recorded], operation: OperationId) -> bool {
    let id = operation.to_string();
    let last = events.iter().rev().find(|event| event.aggregate_id == id).unwrap();
    match serde_json::from_str(&last.payload).unwrap() {
        Op::Stuck { .. } => true,
        Op::StepFailed { step, direction, retry_at, .. } => {
            retry_at.is_none() && (direction == Direction::Undo || step == "overwrite")
        }
        _ => false,
    }
}

/// Where the log can have ended while something was under way: after each append to an operation or to
/// a schedule's run that left one open.
pub fn cuts(events: &[Recorded]) -> Vec<usize> {
    let (mut touched, mut cuts) = (false, Vec::new());
    for (index, event) in events.iter().enumerate() {
        touched |= ["operation", "backup_run"].contains(&event.aggregate_type.as_str());
        // One append shares its metadata and the moment.
        let goes_on = events.get(index + 1).is_some_and(|next| {
            (&next.metadata, next.recorded_at) == (&event.metadata, event.recorded_at)
        });
        if !goes_on && std::mem::take(&mut touched) {
            let part = &events[..=index];
            if !open(part).is_empty() || scheduled::is_running(part) {
                cuts.push(part.len());
            }
        }
    }
    cuts
}

/// Puts these events into the rig's empty log, as they are.
pub async fn load(rig: &Rig, events: &[Recorded]) {
    for event in events {
        let stored = rig
            .store
            .append(Append {
                id: Uuid::now_v7(),
                lane: Lane::Outcome,
                streams: vec![StreamAppend {
                    metadata: None,
                    aggregate_type: event.aggregate_type.clone(),
                    aggregate_id: event.aggregate_id.clone(),
                    expected: Expected::At(event.sequence - 1),
                    events: vec![NewEvent {
                        event_type: event.event_type.clone(),
                        event_version: event.event_version.clone(),
                        payload: event.payload.clone(),
                    }],
                }],
                assertions: vec![],
                side: vec![],
                metadata: event.metadata.clone(),
                fence: None,
                idempotency: None,
            })
            .await;
        stored.unwrap();
    }
}

/// A rig with a log that ends in the middle of something, and the world that fits it; gone on with
/// until nothing is open. Returns what is wrong, and how the open operations ended, and all that a
/// schedule's run began.
pub async fn go_on(events: &[Recorded], effect: bool) -> (Vec<String>, Vec<&'static str>) {
    let data = tempfile::tempdir().unwrap();
    let rig = Rig::new(data.path(), quick()).await;
    load(&rig, events).await;
    build(&rig, events, effect).await;
    let runner = rig.run(None);
    let mut ends = Vec::new();
    for operation in open(events) {
        let mut end = rig.ended(operation, SOON).await;
        if end == "stuck" && may_be_stuck(events, operation) {
            rig.resume(operation, "what kept it from going back is gone").await;
            end = rig.ended(operation, SOON).await;
        }
        ends.push(end);
    }
    let runs = events.iter().any(|event| event.aggregate_type == "backup_schedule");
    if runs {
        ends.append(&mut scheduled::go_on(&rig, events).await);
    }
    runner.stop().await;
    let found = crate::checker::check(&rig.events().await, &rig.guests());
    // What was adopted and given back stays, without our marker and nobody's.
    let ledger = rig.simulator.ledger();
    let released: Vec<String> = ledger
        .containers
        .iter()
        .filter(|guest| !guest.config["description"].contains("proximity/1"))
        .map(|guest| format!("guest {}/{} exists", crate::rig::CLUSTER, guest.vmid))
        .collect();
    let is_released = |anomaly: &String| released.iter().any(|guest| anomaly.starts_with(guest));
    let mut wrong: Vec<String> =
        found.anomalies.iter().filter(|anomaly| !is_released(anomaly)).cloned().collect();
    wrong.append(&mut world::archives_wrong(&rig).await);
    wrong.append(&mut crate::judged::accusations_but_of_names(rig.events().await).await);
    (wrong, ends)
}
