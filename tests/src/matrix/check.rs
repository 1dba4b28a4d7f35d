//! What has to be true after a cell, whatever its fault was: nothing left over, nothing done twice.

use std::time::Duration;

use proximity_commands::dispatch::load;
use proximity_domain::OperationId;
use proximity_domain::application::Application;
use proximity_domain::lease::Lease;
use proximity_domain::operation::{Direction, Event};
use proximity_eventstore::Recorded;

use super::cell::{Cell, Disturbance, Saga};
use super::drive::{Outcome, Site};
use super::{others, powered, restored};
use crate::checker::{self, Findings};
use crate::judged;

/// Compares the site with what it has to look like after this end.
pub async fn all(site: &Site, cell: Cell, end: &str, outcome: &mut Outcome) {
    let complaints = &mut outcome.complaints;
    // A task that was asked to end may need a moment more.
    if tokio::time::timeout(Duration::from_secs(5), site.rig.simulator.idle()).await.is_err() {
        complaints.push("a task is left running".to_owned());
    }
    let events = site.rig.events().await;
    let is_ours = matches!((cell.saga, end), (Saga::Adopt, "done") | (Saga::Release, "undone"));
    let mut guests = site.rig.guests();
    if matches!(cell.saga, Saga::Adopt | Saga::Release) && !is_ours {
        // The stranger's container, which is nobody's here any more.
        guests.clear();
    }
    let found = checker::check(&events, &guests);
    complaints.extend(found.anomalies.iter().cloned());
    complaints.append(&mut judged::accusations_but_of_names(events.clone()).await);
    if !matches!(end, "done" | "undone") {
        complaints.push(format!("it came to no end: {end}"));
        return;
    }
    match cell.saga {
        Saga::CloneLive | Saga::CloneDown => {
            outcome.leaked += others::check_clone(site, end, &found, complaints).await;
        }
        Saga::Adopt | Saga::Release => {
            outcome.leaked += others::check_adoption(site, is_ours, &found, complaints).await;
        }
        Saga::Start | Saga::Stop | Saga::Restart => {
            outcome.leaked += powered::check(site, cell.saga, end, complaints).await;
        }
        Saga::Restore | Saga::RestoreInPlace => {
            outcome.leaked += restored::check(site, cell.saga, end, complaints).await;
        }
        Saga::Template | Saga::Image | Saga::Delete | Saga::Backup | Saga::BackupDelete => {
            one_application(site, cell, end, &found, outcome).await;
        }
    }
    template_leases(&events, &mut outcome.complaints);
    twice(site, cell, end, outcome);
    tries(site, &events, outcome);
    let password = site.rig.simulator.root_password();
    if events
        .iter()
        .any(|event| event.payload.contains(password) || event.metadata.contains(password))
    {
        outcome.complaints.push("a password stands in the log".to_owned());
    }
}

/// A deployment and a deletion are about one application, which is there in full or not at all.
async fn one_application(
    site: &Site,
    cell: Cell,
    end: &str,
    found: &Findings,
    outcome: &mut Outcome,
) {
    let complaints = &mut outcome.complaints;
    let ledger = site.rig.simulator.ledger();
    let (application, _) =
        load::<Application>(&site.rig.store, site.application.as_str()).await.unwrap();
    let lives = match cell.saga {
        Saga::Backup | Saga::BackupDelete => true,
        Saga::Delete => end == "undone",
        _ => end != "undone",
    };
    if lives {
        let leftovers = ledger.leftovers(&site.empty);
        let archive = usize::from(matches!(
            (cell.saga, end),
            (Saga::Backup, "done") | (Saga::BackupDelete, "undone")
        ));
        let wanted = 2 + archive;
        // Its container and its disk, and the archive that there has to be.
        if leftovers.len() != wanted
            || ledger.backups.len() != archive
            || ledger.containers.len() != 1
        {
            outcome.leaked += leftovers.len().saturating_sub(wanted);
            complaints.push(format!("one application's things are not these: {leftovers:?}"));
        }
        let guest = ledger.containers.first();
        if !guest.is_some_and(|guest| {
            guest.status == "running"
                && guest.config.get("protection").is_some_and(|on| on == "1")
                && guest.config["description"].contains(site.application.as_str())
        }) {
            complaints.push(format!("the container is not as it has to be: {guest:?}"));
        }
        if !application.live().is_some_and(|live| live.running && live.current.is_none()) {
            complaints.push(format!("the application is not running and free: {application:?}"));
        }
    } else {
        let leftovers = ledger.leftovers(&site.empty);
        outcome.leaked += leftovers.len() + found.held.len();
        if !leftovers.is_empty() {
            complaints.push(format!("left over on Proxmox: {leftovers:?}"));
        }
        if !found.held.is_empty() {
            complaints.push(format!("still leased: {:?}", found.held));
        }
        let (vmid, _) = load::<Lease>(&site.rig.store, "vmid/lab/104").await.unwrap();
        if !matches!(vmid, Lease::Quarantined { .. } | Lease::Foreign) {
            complaints.push(format!("the VMID is not in quarantine: {vmid:?}"));
        }
        let over = match cell.saga {
            Saga::Delete => application == Application::Removed,
            _ => matches!(application, Application::Failed(_)),
        };
        if !over || application.current().is_some() {
            complaints.push(format!("the application is not over: {application:?}"));
        }
    }
    if matches!(cell.saga, Saga::Backup | Saga::BackupDelete) {
        complaints.extend(crate::backups::wrong(&site.rig, cell.saga == Saga::Backup, end).await);
    }
    if !matches!(cell.saga, Saga::Template | Saga::Image)
        && lives
        && ledger.containers != site.before.containers
    {
        let before = &site.before.containers;
        if !same_but_for_the_address(before, &ledger.containers) {
            complaints.push("the container is not as it was before the operation".to_owned());
        }
    }
}

/// Started anew, a guest may have another address.
pub(super) fn same_but_for_the_address(
    before: &[proximity_simulator::LedgerContainer],
    after: &[proximity_simulator::LedgerContainer],
) -> bool {
    let plain = |guests: &[proximity_simulator::LedgerContainer]| -> Vec<_> {
        guests
            .iter()
            .cloned()
            .map(|mut guest| {
                guest.address = None;
                guest
            })
            .collect()
    };
    plain(before) == plain(after)
}

/// A turn at downloading is given back like everything else.
fn template_leases(events: &[Recorded], complaints: &mut Vec<String>) {
    let mut held = std::collections::BTreeSet::new();
    for event in events.iter().filter(|event| event.aggregate_id.starts_with("template/")) {
        if event.event_type == "lease.acquired" {
            held.insert(&event.aggregate_id);
        } else {
            held.remove(&event.aggregate_id);
        }
    }
    if !held.is_empty() {
        complaints.push(format!("still leased: {held:?}"));
    }
}

/// Nothing that makes or removes a container happened once more than it should.
fn twice(site: &Site, cell: Cell, end: &str, outcome: &mut Outcome) {
    let journal = site.rig.simulator.journal();
    let count = |what: &str| journal.iter().filter(|effect| effect.what == what).count();
    let whole = matches!(cell.saga, Saga::CloneLive | Saga::CloneDown);
    // A clone's source was made before.
    let making = if whole { "container.cloned" } else { "container.created" };
    let (made, gone) = (count(making), count("container.destroyed"));
    let allowed = match (cell.saga, end) {
        (Saga::Adopt | Saga::Release, _) => (0, 0),
        (Saga::Delete, "done") | (Saga::Restore, "done") => (1, 1),
        (Saga::RestoreInPlace | Saga::Start | Saga::Stop | Saga::Restart, _) => (1, 0),
        // The one that was restored is removed again, if it got so far.
        (Saga::Restore, _) => (1, gone.min(1)),
        (_, "done") | (Saga::Delete | Saga::Backup | Saga::BackupDelete, _) => (1, 0),
        // How far it got before it turned back is the fault's to say.
        _ => (made, made),
    };
    let by_hand = matches!(cell.step, "create_container" | "clone_container")
        && cell.disturbance == Disturbance::Forward(10);
    if (made, gone) != allowed && !by_hand || made > 1 {
        outcome.doubled += 1;
        outcome.complaints.push(format!("{made} containers were made and {gone} destroyed"));
    }
}

/// No step was tried more often than allowed.
fn tries(site: &Site, events: &[Recorded], outcome: &mut Outcome) {
    let config = &site.rig.env.config;
    for event in of(events, site.operation) {
        if let Event::StepIntended { step, direction, attempt, .. } = event {
            outcome.most_tries = outcome.most_tries.max(attempt);
            let most = match direction {
                Direction::Act => config.act_attempts,
                Direction::Undo => config.undo_attempts,
            };
            if attempt > most {
                outcome
                    .complaints
                    .push(format!("{step} was tried {attempt} times ({direction:?})"));
            }
        }
    }
}

/// Reason and instructions of the last time that the operation got stuck.
pub fn why_stuck(events: &[Recorded], operation: OperationId) -> Option<(String, String)> {
    of(events, operation).into_iter().rev().find_map(|event| match event {
        Event::Stuck { reason, instructions, .. } => Some((reason, instructions)),
        _ => None,
    })
}

fn of(events: &[Recorded], operation: OperationId) -> Vec<Event> {
    let id = operation.to_string();
    events
        .iter()
        .filter(|event| event.aggregate_type == "operation" && event.aggregate_id == id)
        .map(|event| serde_json::from_str(&event.payload).unwrap())
        .collect()
}
