//! Logs that were written once and are read for ever: how they are made, kept, cut off, and gone on with.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proximity_commands::marker::Marker;
use proximity_domain::application::{self, Origin};
use proximity_domain::operation::{Direction, Event as Op};
use proximity_domain::plan::{CloneWay, GuestRef, Kind, Plan, Source};
use proximity_domain::{ApplicationId, OperationId};
use proximity_eventstore::{Append, Expected, Lane, NewEvent, Recorded, StreamAppend};
use proximity_simulator::{Fault, FaultRule, Foreign};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::matrix::Saga;
use crate::rig::{HOST, Rig, quick, snapshot_of};

/// Within which any operation of these logs ends.
const SOON: Duration = Duration::from_secs(60);
/// Far enough away for an operation that is gone on with years later to go forward.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The kinds of logs; each is one file.
pub const LOGS: &[&str] =
    &["life", "undone", "adopted", "cloned", "backed_up", "image", "cloned_down"];

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
    let saga = if name == "image" { Saga::Image } else { Saga::Start };
    let (application, deployment) =
        rig.deploy_from("web", 104, 8_100, saga.source(), Saga::Start.health()).await;
    let end = if name == "undone" { "undone" } else { "done" };
    assert_eq!(rig.ended(deployment, SOON).await, end);
    match name {
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
        _ => {}
    }
    runner.stop().await;
    rig.events().await
}

/// The container that is adopted; its configuration has the digest that the log names.
fn stranger(description: Option<String>, running: bool) -> Foreign {
    let notes = "kept since 2019\n\nask Ada before stopping it".to_owned();
    let description = match description {
        None => notes,
        Some(marker) => format!("{notes}\n{marker}"),
    };
    Foreign {
        vmid: Some(104),
        hostname: Some("cell".to_owned()),
        description: Some(description),
        config: [("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=dhcp".to_owned())].into(),
        image: "debian-12".to_owned(),
        running,
        ..Foreign::default()
    }
}

/// The operations that are open at the end of these events, oldest first.
pub fn open(events: &[Recorded]) -> Vec<OperationId> {
    let mut open: Vec<OperationId> = Vec::new();
    for event in events.iter().filter(|event| event.aggregate_type == "operation") {
        let id: OperationId = event.aggregate_id.parse().unwrap();
        match event.event_type.as_str() {
            "operation.planned" => open.push(id),
            "operation.completed" | "operation.undone" => open.retain(|one| *one != id),
            _ => {}
        }
    }
    open
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

#[derive(Clone)]
struct Planted {
    application: ApplicationId,
    operation: OperationId,
    hostname: String,
    adopted: bool,
    marked: bool,
    running: bool,
}

/// Makes on the simulator what these events say exists. `effect`: that of the last intent, if that is
/// where they end, happened.
pub async fn build(rig: &Rig, events: &[Recorded], effect: bool) {
    let mut guests: BTreeMap<u32, Planted> = BTreeMap::new();
    let mut requested: BTreeMap<ApplicationId, application::Requested> = BTreeMap::new();
    let mut plans: BTreeMap<String, (ApplicationId, Plan)> = BTreeMap::new();
    let (mut template, mut image, mut snapshot) = (None, None, None);
    for (index, event) in events.iter().enumerate() {
        if event.event_type == "application.requested" {
            let application: ApplicationId = event.aggregate_id.parse().unwrap();
            let application::Event::Requested(asked) =
                serde_json::from_str(&event.payload).unwrap()
            else {
                panic!("a request is no request");
            };
            if asked.origin == Origin::Adopted {
                let planted = planted(&application, &asked, false);
                guests.insert(asked.guest.vmid.get(), Planted { running: true, ..planted });
            }
            requested.insert(application, *asked);
        }
        if event.aggregate_type != "operation" {
            continue;
        }
        let last = index + 1 == events.len();
        let (step, direction) = match serde_json::from_str(&event.payload).unwrap() {
            Op::Planned { application, plan, .. } => {
                if let Plan::Deploy(plan) = &plan
                    && let Source::Oci { image: reference, .. } = &plan.source
                {
                    image = Some(reference.clone());
                }
                plans.insert(event.aggregate_id.clone(), (application, plan));
                continue;
            }
            Op::StepSucceeded { step, direction, found, .. } => {
                if let Some(proximity_domain::operation::Finding::Archive { volume, .. }) = found {
                    template = Some(volume);
                }
                (step, direction)
            }
            Op::StepIntended { step, direction, .. } if last && effect => (step, direction),
            _ => continue,
        };
        let (application, plan) = &plans[&event.aggregate_id];
        let guest: Option<&GuestRef> = plan.guest();
        let Some(vmid) = guest.map(|guest| guest.vmid.get()) else { continue };
        match (step.as_str(), direction) {
            ("create_container" | "clone_container", Direction::Act) => {
                guests.insert(vmid, planted(application, &requested[application], true));
            }
            ("create_container" | "clone_container", Direction::Undo)
            | ("destroy", Direction::Act) => {
                guests.remove(&vmid);
            }
            ("snapshot_source", Direction::Act) => {
                if let Plan::Clone(plan) = plan
                    && let CloneWay::Snapshot { name } = &plan.way
                {
                    snapshot = Some((plan.source_guest.clone(), name.clone()));
                }
            }
            ("stop_source" | "start_source", _) => {
                let Plan::Clone(plan) = plan else { panic!("{step} without a clone") };
                let source = guests.get_mut(&plan.source_guest.vmid.get()).unwrap();
                source.running = (step == "start_source") == matches!(direction, Direction::Act);
            }
            ("remove_snapshot", Direction::Act) | ("snapshot_source", Direction::Undo) => {
                snapshot = None;
            }
            (step, direction) => {
                let Some(planted) = guests.get_mut(&vmid) else { continue };
                match (step, direction) {
                    ("start", Direction::Act) => planted.running = true,
                    ("stop", Direction::Act) | ("start", Direction::Undo) => {
                        planted.running = false;
                    }
                    ("mark_container", Direction::Act) => planted.marked = true,
                    ("mark_container", Direction::Undo) | ("unmark_container", _) => {
                        planted.marked = false;
                    }
                    _ => {}
                }
            }
        }
    }
    for (vmid, planted) in guests {
        plant(rig, vmid, planted).await;
    }
    let hypervisor = rig.env.hypervisors.of(HOST).await.unwrap();
    let node = "pve1".parse().unwrap();
    if let Some(name) = template.as_ref().and_then(|volume| volume.rsplit('/').next()) {
        let task = match &image {
            None => hypervisor.download_appliance(&node, "local", name).await,
            Some(image) => {
                let name = name.trim_end_matches(".tar");
                hypervisor.pull_oci_image(&node, "local", image, name).await
            }
        };
        drop(task.unwrap());
        rig.simulator.idle().await;
    }
    if let Some((guest, name)) = snapshot {
        hypervisor.create_snapshot(&guest.node, guest.vmid, &name).await.unwrap();
        rig.simulator.idle().await;
    }
}

fn planted(application: &ApplicationId, asked: &application::Requested, marked: bool) -> Planted {
    Planted {
        application: application.clone(),
        operation: asked.operation,
        hostname: asked.holdings.hostname.to_string(),
        adopted: asked.origin == Origin::Adopted,
        marked,
        running: false,
    }
}

async fn plant(rig: &Rig, vmid: u32, planted: Planted) {
    let marker = Marker { application: planted.application, operation: planted.operation };
    let number = i64::from(vmid).try_into().unwrap();
    let description =
        rig.env.markers.describe(&marker, &crate::rig::CLUSTER.parse().unwrap(), number);
    let foreign = if planted.adopted {
        stranger(planted.marked.then_some(description), planted.running)
    } else {
        let mut foreign = stranger(None, planted.running);
        foreign.description = Some(description);
        foreign.hostname = Some(planted.hostname);
        foreign.image = "alpine-3.22".to_owned();
        foreign.config.insert("protection".to_owned(), "1".to_owned());
        foreign
    };
    rig.simulator.plant_container(Foreign { vmid: Some(vmid), ..foreign }).await.unwrap();
}

/// A rig with a log that ends in the middle of an operation, and the world that fits it; gone on with
/// until nothing is open. Returns what is wrong, and how the open operations ended.
pub async fn go_on(events: &[Recorded], effect: bool) -> (Vec<String>, Vec<&'static str>) {
    let data = tempfile::tempdir().unwrap();
    let rig = Rig::new(data.path(), quick()).await;
    load(&rig, events).await;
    build(&rig, events, effect).await;
    let runner = rig.run(None);
    let mut ends = Vec::new();
    for operation in open(events) {
        ends.push(rig.ended(operation, SOON).await);
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
    let wrong = found.anomalies.iter().filter(|anomaly| !is_released(anomaly)).cloned().collect();
    (wrong, ends)
}
