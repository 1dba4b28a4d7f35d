//! The cells of clones, adoptions and releases: their plans, how they begin, and what has to be true
//! after them.

use proximity_commands::dispatch::load;
use proximity_domain::application::Application;
use proximity_domain::lease::Lease;
use proximity_domain::plan::{
    AdoptPlan, ClonePlan, CloneWay, DeletePlan, GuestRef, Holdings, Kind, Plan,
};
use proximity_domain::{ApplicationId, OperationId};
use proximity_simulator::{Foreign, Ledger, LedgerContainer};

use super::cell::Saga;
use super::drive::{PATIENCE, Site};
use crate::checker::Findings;
use crate::rig::{ADDRESS, Rig, leased_addresses, snapshot_of};

/// Notes of the container's own that have to survive.
const NOTES: &str = "kept since 2019\n\nask Ada before stopping it";

/// The plan whose list of steps counts.
pub fn plan(saga: Saga, guest: GuestRef) -> Plan {
    let holdings = Holdings {
        hostname: "copy".parse().unwrap(),
        public_port: None,
        internal_port: None,
        address: None,
    };
    match saga {
        Saga::Adopt => Plan::Adopt(Box::new(AdoptPlan {
            guest,
            holdings,
            digest: String::new(),
            was_running: true,
        })),
        Saga::Release => Plan::Delete(DeletePlan {
            guest: Some(guest),
            holdings: Some(holdings),
            was_running: true,
            adopted_by: Some(OperationId(uuid::Uuid::nil())),
            replaced: false,
            detached: false,
        }),
        _ => Plan::Clone(Box::new(ClonePlan {
            agreed: false,
            source: "alpine-00000000".parse().unwrap(),
            source_guest: guest.clone(),
            guest,
            holdings,
            way: way(saga, OperationId(uuid::Uuid::nil())),
            network: leased_addresses(),
            health: saga.health(),
        })),
    }
}

fn way(saga: Saga, operation: OperationId) -> CloneWay {
    match saga {
        Saga::CloneDown => CloneWay::Downtime,
        _ => CloneWay::Snapshot { name: snapshot_of(operation) },
    }
}

/// What the operation begins with: its application, itself, the ledger before it, and the source.
pub struct Begun {
    pub application: ApplicationId,
    pub operation: OperationId,
    pub before: Ledger,
    pub source: Option<ApplicationId>,
}

/// An application that runs and is about to be copied.
pub async fn begin_clone(rig: &Rig, saga: Saga) -> Begun {
    let (source, deployment) =
        rig.deploy_from("cell", 104, 8_100, saga.source(), saga.health()).await;
    let runner = rig.run(None);
    assert_eq!(rig.ended(deployment, PATIENCE).await, "done", "the deployment of the source");
    runner.stop().await;
    let before = rig.simulator.ledger();
    let (application, operation) =
        rig.clone_of(&source, "copy", 105, 8_200, |operation| way(saga, operation)).await;
    Begun { application, operation, before, source: Some(source) }
}

/// A stranger's container that is about to be adopted, or was and is about to be given back.
pub async fn begin_adoption(rig: &Rig, saga: Saga) -> Begun {
    let stranger = Foreign {
        vmid: Some(104),
        hostname: Some("cell".to_owned()),
        description: Some(NOTES.to_owned()),
        config: [("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=dhcp".to_owned())].into(),
        image: "debian-12".to_owned(),
        running: true,
        ..Foreign::default()
    };
    rig.simulator.plant_container(stranger).await.unwrap();
    let before = rig.simulator.ledger();
    let (application, operation) = rig.adopt(104, "cell").await;
    if saga == Saga::Adopt {
        return Begun { application, operation, before, source: None };
    }
    let runner = rig.run(None);
    assert_eq!(rig.ended(operation, PATIENCE).await, "done", "the adoption before the release");
    runner.stop().await;
    let operation = rig.begin(&application, Kind::Delete).await;
    Begun { application, operation, before, source: None }
}

/// What is wrong after a clone that ended so.
pub async fn check_clone(
    site: &Site,
    end: &str,
    found: &Findings,
    complaints: &mut Vec<String>,
) -> usize {
    let ledger = site.rig.simulator.ledger();
    let mut leaked = 0;
    let source = site.source.as_ref().expect("a clone has a source");
    let (origin, _) = load::<Application>(&site.rig.store, source.as_str()).await.unwrap();
    if !origin.live().is_some_and(|live| live.running && live.current.is_none()) {
        complaints.push(format!("the source is not running and free: {origin:?}"));
    }
    let plain = |ledger: &Ledger| {
        let guest = ledger.container(104).cloned();
        guest.map(|guest| LedgerContainer { address: None, ..guest })
    };
    if plain(&ledger) != plain(&site.before) {
        let now = ledger.container(104);
        complaints.push(format!("the source is not as it was: {now:?}"));
    }
    let (copy, _) = load::<Application>(&site.rig.store, site.application.as_str()).await.unwrap();
    let leftovers = ledger.leftovers(&site.before);
    let held: Vec<&String> = found
        .held
        .iter()
        .filter(|(_, by)| **by == site.application.as_str())
        .map(|h| h.0)
        .collect();
    if end == "done" {
        // Its container and its disk.
        if leftovers.len() != 2 {
            leaked += leftovers.len().saturating_sub(2);
            complaints.push(format!("one copy's things are not these: {leftovers:?}"));
        }
        let net = |vmid| ledger.container(vmid).and_then(|guest| guest.config.get("net0").cloned());
        let mac = |net: Option<String>| {
            net.and_then(|net| {
                net.split(',').find(|member| member.starts_with("hwaddr=")).map(str::to_owned)
            })
        };
        let good = ledger.container(105).is_some_and(|guest| {
            guest.status == "running"
                && guest.name == "copy"
                && guest.lock.is_none()
                && guest.config.get("protection").is_some_and(|on| on == "1")
                && guest.config["description"].contains(site.application.as_str())
                && !guest.config["description"].contains(source.as_str())
                && guest.config["net0"].contains(&format!("ip={ADDRESS}/24"))
        });
        if !good || mac(net(104)) == mac(net(105)) {
            complaints
                .push(format!("the copy is not as it has to be: {:?}", ledger.container(105)));
        }
        if !copy.live().is_some_and(|live| live.running && live.current.is_none()) {
            complaints.push(format!("the copy is not running and free: {copy:?}"));
        }
        if held.len() != 5 {
            complaints.push(format!("the copy holds {held:?}"));
        }
        return leaked;
    }
    leaked += leftovers.len() + held.len();
    if !leftovers.is_empty() || !held.is_empty() {
        complaints.push(format!("left over: {leftovers:?}, still leased: {held:?}"));
    }
    let (vmid, _) = load::<Lease>(&site.rig.store, "vmid/lab/105").await.unwrap();
    if !matches!(vmid, Lease::Quarantined { .. } | Lease::Foreign) {
        complaints.push(format!("the copy's VMID is not in quarantine: {vmid:?}"));
    }
    if !matches!(copy, Application::Failed(_)) || copy.current().is_some() {
        complaints.push(format!("the copy is not over: {copy:?}"));
    }
    leaked
}

/// What is wrong after an adoption or a release that ended so.
pub async fn check_adoption(
    site: &Site,
    is_ours: bool,
    found: &Findings,
    complaints: &mut Vec<String>,
) -> usize {
    let ledger = site.rig.simulator.ledger();
    let (before, now) = (site.before.container(104), ledger.container(104));
    let mut expected = before.cloned();
    if is_ours && let (Some(expected), Some(now)) = (&mut expected, now) {
        let notes = now.config.get("description").cloned().unwrap_or_default();
        if !notes.starts_with(NOTES) || !notes.contains(site.application.as_str()) {
            complaints.push(format!("the notes are not as they have to be: {notes:?}"));
        }
        expected.config.insert("description".to_owned(), notes);
    }
    if expected.as_ref() != now {
        complaints.push(format!("the container is {now:?} and not {expected:?}"));
    }
    let leftovers = ledger.leftovers(&site.before);
    let (application, _) =
        load::<Application>(&site.rig.store, site.application.as_str()).await.unwrap();
    let right = match &application {
        Application::Live(live) => is_ours && live.running && live.current.is_none(),
        Application::Failed(failed) => !is_ours && failed.current.is_none(),
        Application::Removed => !is_ours,
        Application::Absent => false,
    };
    if !right {
        complaints.push(format!("the application is {application:?}"));
    }
    let held = if is_ours { 2 } else { 0 };
    if found.held.len() != held || !leftovers.is_empty() {
        complaints.push(format!("left over: {leftovers:?}, leased: {:?}", found.held));
    }
    leftovers.len() + if is_ours { 0 } else { found.held.len() }
}
