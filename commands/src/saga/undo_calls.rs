//! What the undoing of each step would ask Proxmox to do; beside `calls`, which tells the steps' own.

use proximity_domain::plan::{CloneWay, GuestRef, Plan};

use super::calls::Planned;

const IF_THERE: Option<&str> = Some("if it is there");

/// The calls with an effect that taking a step back makes, in order, when nothing fails.
pub fn undo_calls(plan: &Plan, step: &str) -> Vec<Planned> {
    let Some(guest) = plan.guest() else { return Vec::new() };
    let of = |guest: &GuestRef| format!("/nodes/{}/lxc/{}", guest.node, guest.vmid);
    let own = of(guest);
    let start =
        |guest: &str| vec![(format!("POST {guest}/status/start"), Some("if it does not run"))];
    let calls = match (step, plan) {
        ("create_container" | "clone_container" | "restore_container", _) => vec![
            (format!("POST {own}/status/stop"), Some("if it runs")),
            (format!("PUT {own}/config"), Some("if it is protected")),
            (format!("DELETE {own}"), IF_THERE),
        ],
        ("start", Plan::Start(_) | Plan::Deploy(_) | Plan::Clone(_) | Plan::Restore(_)) => {
            vec![(format!("POST {own}/status/stop"), Some("if it runs"))]
        }
        ("stop", _) => start(&own),
        ("unprotect", _) => vec![(format!("PUT {own}/config"), Some("if it is not protected"))],
        ("mark_container", _) => vec![(format!("PUT {own}/config"), Some("if it is marked"))],
        ("create_backup", Plan::Backup(plan)) => {
            let storage = &plan.storage;
            let call =
                format!("DELETE /nodes/{}/storage/{storage}/content/{{archive}}", guest.node);
            vec![(call, IF_THERE)]
        }
        ("snapshot_source", Plan::Clone(plan)) => match &plan.way {
            CloneWay::Snapshot { name } => {
                vec![(format!("DELETE {}/snapshot/{name}", of(&plan.source_guest)), IF_THERE)]
            }
            CloneWay::Stopped | CloneWay::Downtime => Vec::new(),
        },
        ("stop_source", Plan::Clone(plan)) => start(&of(&plan.source_guest)),
        ("stop_original", Plan::Restore(plan)) => start(&of(&plan.original)),
        _ => Vec::new(),
    };
    let step = step.to_owned();
    calls.into_iter().map(|(call, only)| Planned { step: step.clone(), call, only }).collect()
}
