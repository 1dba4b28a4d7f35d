//! The leak checker: reads the event log and the cluster's ledger, and says what is left over.
//!
//! It folds the events by rules of its own, not through the aggregates, so that a mistake in them
//! cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::OperationId;
use proximity_domain::lease::Holder;
use proximity_domain::plan::Kind;
use proximity_domain::{application, lease, operation};
use proximity_eventstore::Recorded;

/// What the log says at its end.
#[derive(Debug, Default)]
pub struct Findings {
    /// Sentences about everything that is wrong; empty when nothing is.
    pub anomalies: Vec<String>,
    /// Lease key → holding application, for those that are held.
    pub held: BTreeMap<String, String>,
    /// Applications that were requested and neither failed nor removed, with their `cluster/vmid`.
    pub live: BTreeMap<String, String>,
    /// Those of them that were adopted: they lease no ports.
    pub adopted: BTreeSet<String>,
    /// Applications whose deployment was undone, or whose making or removal was given up.
    pub failed: BTreeSet<String>,
    /// The last operation of each that makes or removes it as a whole.
    whole: BTreeMap<String, OperationId>,
    /// Operations by their last state.
    pub operations: BTreeMap<String, usize>,
    /// Operations that are stuck.
    pub stuck: BTreeSet<String>,
}

fn decode<T: serde::de::DeserializeOwned>(event: &Recorded) -> T {
    serde_json::from_str(&event.payload)
        .unwrap_or_else(|error| panic!("position {}: {error}: {}", event.position, event.payload))
}

/// Checks the whole log, from position 1, against the guests that exist (`cluster/vmid`).
pub fn check(events: &[Recorded], guests: &BTreeSet<String>) -> Findings {
    let mut found = Findings::default();
    let mut sequences: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut states: BTreeMap<String, &'static str> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        if event.position != index as u64 + 1 {
            found.anomalies.push(format!("position {} stands at {}", event.position, index + 1));
        }
        let sequence = sequences
            .entry((event.aggregate_type.as_str(), event.aggregate_id.as_str()))
            .or_default();
        *sequence += 1;
        if event.sequence != *sequence {
            found.anomalies.push(format!("{} has a gap at {sequence}", event.aggregate_id));
        }
        match event.aggregate_type.as_str() {
            "lease" => fold_lease(&mut found, event),
            "application" => fold_application(&mut found, event),
            "operation" => fold_operation(&mut states, event),
            _ => {}
        }
    }
    for (id, state) in &states {
        *found.operations.entry((*state).to_owned()).or_default() += 1;
        match *state {
            "done" | "undone" | "abandoned" => {}
            "stuck" => {
                found.stuck.insert(id.clone());
            }
            open => found.anomalies.push(format!("operation {id} is left {open}")),
        }
    }
    compare(&mut found, guests);
    found
}

fn fold_lease(found: &mut Findings, event: &Recorded) {
    let key = event.aggregate_id.clone();
    match decode::<lease::Event>(event) {
        lease::Event::Acquired { holder: Holder::Application(holder) } => {
            if let Some(other) = found.held.insert(key, holder.to_string()) {
                found.anomalies.push(format!(
                    "{} went to {holder} while {other} held it (position {})",
                    event.aggregate_id, event.position
                ));
            }
        }
        lease::Event::Acquired { .. } => {}
        lease::Event::Released { .. }
        | lease::Event::Quarantined { .. }
        | lease::Event::FoundForeign { .. } => {
            found.held.remove(&key);
        }
        lease::Event::Cleared => {}
    }
}

fn fold_application(found: &mut Findings, event: &Recorded) {
    let id = event.aggregate_id.clone();
    match decode::<application::Event>(event) {
        application::Event::Requested(requested) => {
            let guest = format!("{}/{}", requested.guest.cluster, requested.guest.vmid);
            if requested.origin == application::Origin::Adopted {
                found.adopted.insert(id.clone());
            }
            found.whole.insert(id.clone(), requested.operation);
            if found.live.insert(id.clone(), guest).is_some() {
                found.anomalies.push(format!("{id} was requested twice"));
            }
        }
        application::Event::VmidReplaced { to, .. } => {
            if let Some(guest) = found.live.get_mut(&id) {
                let cluster = guest.split('/').next().unwrap_or_default().to_owned();
                *guest = format!("{cluster}/{to}");
            }
        }
        application::Event::GuestSwapped { to, .. } => {
            found.live.insert(id, format!("{}/{}", to.cluster, to.vmid));
        }
        application::Event::OperationBegan { operation, kind: Kind::Delete } => {
            found.whole.insert(id, operation);
        }
        application::Event::OperationAbandoned { operation, .. }
            if found.whole.get(&id) == Some(&operation) =>
        {
            found.live.remove(&id);
            found.failed.insert(id);
        }
        application::Event::DeploymentFailed { .. } => {
            found.live.remove(&id);
            found.failed.insert(id);
        }
        application::Event::Removed { .. } => {
            found.live.remove(&id);
            found.failed.remove(&id);
        }
        _ => {}
    }
}

fn fold_operation(states: &mut BTreeMap<String, &'static str>, event: &Recorded) {
    let state = match decode::<operation::Event>(event) {
        operation::Event::Completed => "done",
        operation::Event::Undone { .. } => "undone",
        operation::Event::Stuck { .. } => "stuck",
        operation::Event::Abandoned { .. } => "abandoned",
        operation::Event::UnwindingBegan { .. } => "unwinding",
        operation::Event::Planned { .. } | operation::Event::Resumed { .. } => "running",
        _ => return,
    };
    states.insert(event.aggregate_id.clone(), state);
}

/// Held leases, live applications and guests have to be the same things.
fn compare(found: &mut Findings, guests: &BTreeSet<String>) {
    for (key, holder) in &found.held {
        if !found.live.contains_key(holder) {
            found.anomalies.push(format!("{key} is held by {holder}, which is not live"));
        }
    }
    for (id, guest) in &found.live {
        if !guests.contains(guest) {
            found.anomalies.push(format!("{id} is live, but guest {guest} does not exist"));
        }
        let kinds = ["hostname/", "vmid/", "port/public/", "port/internal/"];
        for kind in kinds {
            let holds =
                found.held.iter().filter(|(key, by)| key.starts_with(kind) && *by == id).count();
            let wanted = usize::from(!kind.starts_with("port/") || !found.adopted.contains(id));
            if holds != wanted {
                found.anomalies.push(format!("{id} holds {holds} of {kind}"));
            }
        }
    }
    let wanted: BTreeSet<&String> = found.live.values().collect();
    for guest in guests.iter().filter(|guest| !wanted.contains(guest)) {
        found.anomalies.push(format!("guest {guest} exists, but no live application has it"));
    }
}
