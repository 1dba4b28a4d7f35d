//! What an operator has to do about an operation that is stuck.

use proximity_domain::operation::Progress;
use proximity_domain::plan::{ClonePlan, GuestRef, Plan, RestorePlan, RestoreWay};

use super::guest::rest_of_destruction;
use super::orphans::rest_of_creation;

/// What an operator has to do, in words that can be followed.
pub(super) fn instructions(progress: &Progress, step: &str, reason: &str) -> String {
    let Some(guest) = progress.plan.guest() else {
        return "mend what the reason names, then resume the operation".to_owned();
    };
    if let Some(todo) = rest_of_destruction(reason).or_else(|| rest_of_creation(reason)) {
        return todo;
    }
    let GuestRef { node, vmid, .. } = guest;
    match &progress.plan {
        Plan::Clone(plan) => return clone_instructions(plan, step, reason),
        Plan::Restore(plan) => return restore_instructions(plan, step, reason),
        _ => {}
    }
    let locked = reason.contains("lock");
    if reason.contains("creation") {
        // Unlocked, it would be an empty configuration that says nobody's name.
        format!(
            "the creation of container {vmid} on node {node} was broken off; when no task works on it \
             any more, run `pct unlock {vmid}` and `pct destroy {vmid} --purge`, then resume the \
             operation"
        )
    } else if locked {
        format!(
            "on node {node}, see with `pct config {vmid}` which lock container {vmid} carries; when no \
             task works on it any more, run `pct unlock {vmid}`, then resume the operation"
        )
    } else if reason.contains("marker") {
        format!(
            "look at container {vmid} on node {node}: if it is this application's, put the marker \
             line back into its notes and resume; if it is not, abandon the operation"
        )
    } else {
        format!(
            "the step `{step}` on container {vmid} of node {node} keeps failing: mend what the reason \
             names, then resume the operation; or remove the container by hand and abandon it"
        )
    }
}

/// The same for a copy, where two containers may be locked.
fn clone_instructions(plan: &ClonePlan, step: &str, reason: &str) -> String {
    let (node, source, copy) = (&plan.guest.node, plan.source_guest.vmid, plan.guest.vmid);
    if reason.contains("creation") {
        format!(
            "the copying of container {source} into {copy} on node {node} was broken off; when no \
             task works on either any more, run `pct unlock {source}`, `pct unlock {copy}` and \
             `pct destroy {copy} --purge`, then resume the operation"
        )
    } else if reason.contains("lock") {
        format!(
            "on node {node}, see with `pct config {source}` which lock container {source} carries; \
             when no task works on it any more, run `pct unlock {source}`, then resume the operation"
        )
    } else {
        format!(
            "the step `{step}` of copying container {source} into {copy} on node {node} keeps \
             failing: mend what the reason names, then resume the operation"
        )
    }
}

/// The same for a restore, where there are two containers or one that is half overwritten.
fn restore_instructions(plan: &RestorePlan, step: &str, reason: &str) -> String {
    let (node, new, old) = (&plan.guest.node, plan.guest.vmid, plan.original.vmid);
    let locked = reason.contains("lock");
    match (plan.way, step) {
        // Unlocked, it would be an empty configuration that says nobody's name.
        (RestoreWay::InPlace, _) if reason.contains("creation") => format!(
            "the restoring over container {old} on node {node} was broken off when its disks were gone \
             already; when no task works on it any more, run `pct unlock {old}` and \
             `pct destroy {old} --purge`, then resume the operation, which restores the archive again; \
             abandoning it instead does not help: what is left stays locked until that was done"
        ),
        (RestoreWay::InPlace, _) if locked => format!(
            "on node {node}, see with `pct config {old}` which lock container {old} carries; when no \
             task works on it any more, run `pct unlock {old}`, then resume the operation, which \
             restores the archive again"
        ),
        (RestoreWay::InPlace, _) => format!(
            "container {old} on node {node} may be gone, and the archive is still there: mend what the \
             reason names, then resume the operation, which goes on from `{step}` and restores the \
             archive again where it has to; or abandon it and restore the backup, not in place"
        ),
        (RestoreWay::Swap, "restore_container" | "start" | "wait_healthy") if locked => format!(
            "the restoring into container {new} on node {node} was broken off; when no task works on \
             it any more, run `pct unlock {new}` and `pct destroy {new} --purge`, then resume the \
             operation"
        ),
        (RestoreWay::Swap, _) if locked => format!(
            "see with `pct config {old}` on node {} which lock container {old} carries; when no task \
             works on it any more, run `pct unlock {old}`, then resume the operation",
            plan.original.node
        ),
        (RestoreWay::Swap, _) => format!(
            "the step `{step}` of restoring container {old} into {new} on node {node} keeps failing: \
             mend what the reason names, then resume the operation"
        ),
    }
}
