//! A plan that was seen in a dry run and is to be carried out as it was, or not at all.
//!
//! It travels with the caller, as a preview and an idempotency key do. What was picked at random then
//! is taken again; the unit of work holds its own events against those that were seen.

use std::fmt;
use std::net::IpAddr;

use proximity_domain::plan::{Holdings, Plan};
use proximity_domain::{HostId, NodeName, Port, Vmid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Actor;
use crate::applications::Applications;
use crate::error::Error;
use crate::preview::Draft;

/// What a plan chose where it could have chosen otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picks {
    pub host: Option<HostId>,
    pub node: Option<NodeName>,
    pub vmid: Option<Vmid>,
    pub public_port: Option<Port>,
    pub internal_port: Option<Port>,
    pub address: Option<IpAddr>,
}

impl Picks {
    /// Those of a plan: only what makes a container picks anything.
    pub fn of(plan: &Plan) -> Self {
        let (guest, holdings): (_, &Holdings) = match plan {
            Plan::Deploy(plan) => (&plan.guest, &plan.holdings),
            Plan::Clone(plan) => (&plan.guest, &plan.holdings),
            Plan::Restore(plan) => {
                let guest = &plan.guest;
                let (host, node) = (Some(guest.host), Some(guest.node.clone()));
                return Self { host, node, vmid: Some(guest.vmid), ..Self::default() };
            }
            _ => return Self::default(),
        };
        Self {
            host: Some(guest.host),
            node: Some(guest.node.clone()),
            vmid: Some(guest.vmid),
            public_port: holdings.public_port,
            internal_port: holdings.internal_port,
            address: holdings.address,
        }
    }
}

/// The plan that a caller sent back.
pub struct Agreed {
    pub picks: Picks,
    matches: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Agreed {
    /// `matches` says whether a decision's digest is the one that was agreed on.
    pub fn new(picks: Picks, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { picks, matches: Box::new(matches) }
    }

    /// Whether this is what was agreed on.
    pub fn is(&self, draft: &Draft) -> bool {
        (self.matches)(&digest(draft))
    }
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreed").field("picks", &self.picks).finish_non_exhaustive()
    }
}

/// Only one and the same plan is equal to itself.
impl PartialEq for Agreed {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Agreed {}

/// Something that the plan rests on is no longer so.
pub fn changed() -> Error {
    Error::Precondition {
        code: "plan.changed",
        detail: "this plan can no longer be carried out as it was; ask for another one".to_owned(),
    }
}

/// Refuses where there is nothing left to do of a plan that was agreed on: a plan always does something.
pub(crate) fn not_so_already(actor: &Actor) -> Result<(), Error> {
    if actor.agreed.is_some() { Err(changed()) } else { Ok(()) }
}

impl Applications {
    /// Asks Proxmox once more for a number that was agreed on: what is known of its guests is some
    /// seconds old. Whoever takes it later than that lets the operation fail.
    pub(crate) async fn confirm(
        &self,
        actor: &Actor,
        host: HostId,
        vmid: Vmid,
    ) -> Result<(), Error> {
        if actor.agreed.is_none() {
            return Ok(());
        }
        let asked = match self.hypervisors.of(host).await {
            Ok(hypervisor) => hypervisor.vmid_is_free(vmid).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(false) => Err(changed()),
            Ok(true) => Ok(()),
            Err(error) => {
                // The operation asks again before it does anything.
                tracing::debug!(%error, %host, "Proxmox cannot be asked about an agreed number");
                Ok(())
            }
        }
    }
}

/// Hexadecimal SHA-256 of a decision: all its events, without what is made up anew each time (ids) and
/// without the time until which it has to be done.
pub fn digest(draft: &Draft) -> String {
    let made_up: Vec<(String, String)> = draft
        .events
        .iter()
        .filter(|event| event.sequence == 1)
        .flat_map(|event| {
            let id = event.aggregate_id.clone();
            let name = format!("<{}>", event.aggregate_type);
            // Names of snapshots are made of an operation's id.
            let simple = id.replace('-', "");
            let known = matches!(&*event.aggregate_type, "application" | "operation" | "backup");
            [(id, name.clone()), (simple, name)].into_iter().filter(move |_| known)
        })
        .collect();
    let plain = |text: &str| {
        made_up.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id.as_str(), name))
    };
    let mut parts: Vec<[String; 5]> = draft
        .events
        .iter()
        .map(|event| {
            let payload = &event.payload;
            let payload = serde_json::from_str(payload).map_or_else(|_| payload.clone(), without);
            let (kind, id) = (event.aggregate_type.clone(), plain(&event.aggregate_id));
            let (name, version) = (event.event_type.clone(), event.event_version.clone());
            [kind, id, name, version, plain(&payload)]
        })
        .collect();
    // Streams stand by their ids, some of which are made up; what is in one stays in order.
    parts.sort_by(|a, b| a[..2].cmp(&b[..2]));
    let mut hash = Sha256::new();
    for part in parts.iter().flatten() {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A payload without the ids of secrets, which are new each time, without its deadline, and without
/// saying that it was agreed on: a plan that is seen for the first time cannot have been.
fn without(mut payload: serde_json::Value) -> String {
    fn walk(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.remove("deadline");
                if fields.get("agreed") == Some(&serde_json::Value::Bool(true)) {
                    fields.remove("agreed");
                }
                if let Some(secret) = fields.get_mut("secret") {
                    *secret = serde_json::Value::Null;
                }
                fields.values_mut().for_each(walk);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut payload);
    payload.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preview::DraftEvent;

    fn draft(application: &str, operation: &str, vmid: u32, deadline: i64) -> Draft {
        let event = |kind: &str, id: &str, payload: String| DraftEvent {
            aggregate_type: kind.to_owned(),
            aggregate_id: id.to_owned(),
            sequence: 1,
            event_type: format!("{kind}.x"),
            event_version: "1".to_owned(),
            payload,
        };
        let planned = format!(
            "{{\"application\":\"{application}\",\"vmid\":{vmid},\"deadline\":{deadline},\"snapshot\":\"px{}\"}}",
            operation.replace('-', "")
        );
        let events = vec![
            event("application", application, format!("{{\"by\":\"{operation}\"}}")),
            event("operation", operation, planned),
        ];
        Draft { events }
    }

    #[test]
    fn what_is_made_up_anew_each_time_makes_no_other_plan_and_what_is_chosen_does() {
        let first = draft("nginx-00000001", "0b4e7f3a-0000-4000-8000-000000000001", 100, 1);
        let again = draft("nginx-00000002", "0b4e7f3a-0000-4000-8000-000000000002", 100, 2);
        let other = draft("nginx-00000001", "0b4e7f3a-0000-4000-8000-000000000001", 101, 1);
        assert_eq!(digest(&first), digest(&again));
        assert_ne!(digest(&first), digest(&other));
    }
}
