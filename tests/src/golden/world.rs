//! The world that a log speaks of, built on the simulator from its events alone.

use std::collections::{BTreeMap, BTreeSet};

use proximity_commands::dispatch::load;
use proximity_commands::marker::Marker;
use proximity_domain::application::{self, Origin};
use proximity_domain::backup::{Backup, Outcome};
use proximity_domain::operation::{Direction, Event as Op, Finding};
use proximity_domain::plan::{CloneWay, GuestRef, Plan, Source};
use proximity_domain::{ApplicationId, OperationId};
use proximity_eventstore::Recorded;
use proximity_simulator::Foreign;

use crate::rig::{HOST, Rig};

/// An archive that exists.
struct Stored {
    vmid: u32,
    volume: String,
    notes: String,
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
pub(super) async fn build(rig: &Rig, events: &[Recorded], effect: bool) {
    let mut guests: BTreeMap<u32, Planted> = BTreeMap::new();
    let mut archives: BTreeMap<OperationId, Stored> = BTreeMap::new();
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
        let operation: OperationId = event.aggregate_id.parse().unwrap();
        let mut made = None;
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
            Op::PlanChanged { plan, .. } => {
                plans.get_mut(&event.aggregate_id).unwrap().1 = plan;
                continue;
            }
            Op::StepSucceeded { step, direction, found, .. } => {
                match found {
                    Some(Finding::Archive { volume, .. }) => template = Some(volume),
                    Some(Finding::Backup(archive)) => made = Some(archive.volume),
                    Some(Finding::Address(_)) | None => {}
                }
                (step, direction)
            }
            Op::StepIntended { step, direction, .. } if last && effect => (step, direction),
            // Whoever gives a deployment up destroys what it has made.
            Op::Abandoned { .. } => {
                let plan = &plans[&event.aggregate_id].1;
                if let (Plan::Deploy(_), Some(guest)) = (plan, plan.guest()) {
                    guests.remove(&guest.vmid.get());
                }
                continue;
            }
            _ => continue,
        };
        let (application, plan) = &plans[&event.aggregate_id];
        let guest: Option<&GuestRef> = plan.guest();
        let Some(vmid) = guest.map(|guest| guest.vmid.get()) else { continue };
        match (step.as_str(), direction) {
            ("create_container" | "clone_container", Direction::Act) => {
                guests.insert(vmid, planted(application, &requested[application], true));
            }
            ("restore_container", Direction::Act) => {
                let planted = planted(application, &requested[application], true);
                guests.insert(vmid, Planted { operation, ..planted });
            }
            ("create_container" | "clone_container" | "restore_container", Direction::Undo)
            | ("destroy", Direction::Act) => {
                guests.remove(&vmid);
            }
            ("overwrite", Direction::Act) => {
                let guest = guests.get_mut(&vmid).unwrap();
                (guest.operation, guest.running) = (operation, false);
            }
            ("stop_original", _) => {
                guests.get_mut(&original(plan)).unwrap().running = direction == Direction::Undo;
            }
            ("destroy_original", Direction::Act) => {
                guests.remove(&original(plan));
            }
            ("create_backup", Direction::Act) => {
                // Nobody learnt its name if the log ends before the step's outcome.
                let volume = made.unwrap_or_else(|| {
                    format!("local:backup/vzdump-lxc-{vmid}-2026_11_29-03_00_00.tar.zst")
                });
                let notes = format!("proximity operation={operation}");
                archives.insert(operation, Stored { vmid, volume, notes });
            }
            ("create_backup", Direction::Undo) => {
                archives.remove(&operation);
            }
            ("delete_backup", Direction::Act) => {
                let Plan::BackupDelete(plan) = plan else { panic!("{step} without its plan") };
                archives.remove(&plan.made_by);
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
    let there: BTreeSet<u32> = guests.keys().copied().collect();
    for (vmid, planted) in guests {
        plant(rig, vmid, planted).await;
    }
    for Stored { vmid, volume, notes } in archives.into_values() {
        let is_gone = !there.contains(&vmid);
        if is_gone {
            let former = Foreign { vmid: Some(vmid), ..stranger(None, false) };
            rig.simulator.plant_container(former).await.unwrap();
        }
        rig.simulator.plant_archive(vmid, &volume, &notes).unwrap();
        if is_gone {
            rig.simulator.remove_container(vmid).await.unwrap();
        }
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

/// The container that a restore replaces.
fn original(plan: &Plan) -> u32 {
    let Plan::Restore(plan) = plan else { panic!("{plan:?} is no restore") };
    plan.original.vmid.get()
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

/// The container that is adopted; its configuration has the digest that the log names.
pub(super) fn stranger(description: Option<String>, running: bool) -> Foreign {
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

/// What differs between the archives that the records name and those that are stored.
pub(super) async fn archives_wrong(rig: &Rig) -> Vec<String> {
    let ids: BTreeSet<String> = rig
        .events()
        .await
        .into_iter()
        .filter(|event| event.aggregate_type == "backup")
        .map(|event| event.aggregate_id)
        .collect();
    let mut recorded = BTreeSet::new();
    for id in ids {
        let (backup, _) = load::<Backup>(&rig.store, &id).await.unwrap();
        if let Some(Outcome::Completed(archive)) = backup.kept().map(|kept| kept.outcome.clone()) {
            recorded.insert(archive.volume);
        }
    }
    let backups = rig.simulator.ledger().backups;
    let stored: BTreeSet<String> = backups.into_iter().map(|backup| backup.volid).collect();
    let differ = recorded.symmetric_difference(&stored);
    differ.map(|volume| format!("{volume} is recorded or stored, and not both")).collect()
}
