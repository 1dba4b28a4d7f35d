//! What an operator has to do about an operation that is stuck.

use proximity_domain::operation::Progress;
use proximity_domain::plan::{ClonePlan, CloneWay, GuestRef, Plan, RestorePlan, RestoreWay};
use proximity_domain::{NodeName, Vmid};

use super::guest::{is_not_ours, rest_of_destruction};
use super::left::{HAS_LEFT, rest_of_creation};
use super::unlisted;

/// What stands between the container and the rest of each of our sentences on a creation's lock that was
/// seen on it.
const BY_A_CREATION: &str = " is locked by a creation that ";
/// What such a sentence begins with.
const WHICH: [&str; 4] = ["the container", "the number", "the restored container", "the copy"];
/// Said of any lock that was seen, and by Proxmox of one that it refuses to work under.
const LOCKED: [&str; 2] = ["carries the lock `", "CT is locked ("];

/// Steps of a restore that are about the new container.
const OF_RESTORED: [&str; 4] = ["restore_container", "start", "wait_healthy", "stop_restored"];

/// Whether a creation's lock was seen on the container, and nothing that works under it. Only our own
/// sentences say so, from their first word on: what Proxmox says may be about any creation and any lock,
/// and a destruction that is advised for one word of it would cost a container that is whole.
pub(super) fn was_seen_broken_off(reason: &str) -> bool {
    reason.split_once(BY_A_CREATION).is_some_and(|(which, _)| WHICH.contains(&which))
}

/// Whether a lock is in the way, of which nothing more is known.
fn is_locked(reason: &str) -> bool {
    LOCKED.iter().any(|words| reason.contains(words))
}

/// What an operator has to do, in words that can be followed.
pub(super) fn instructions(progress: &Progress, step: &str, reason: &str) -> String {
    let Some(guest) = progress.plan.guest() else {
        return "mend what the reason names, then resume the operation".to_owned();
    };
    if let Some(todo) = rest_of_destruction(reason).or_else(|| rest_of_creation(reason)) {
        return todo;
    }
    let mut todo = of_plan(progress, guest, step, reason);
    if !was_seen_broken_off(reason) {
        return todo;
    }
    if unlisted::is_said(reason) {
        todo.push_str("; before you resume or abandon it, ");
        todo.push_str(&unlisted::remedy(guest.vmid));
    } else if reason.contains(HAS_LEFT) {
        let is_copy = matches!(progress.plan, Plan::Clone(_));
        todo.push_str(if is_copy { " and" } else { ", which" });
        todo.push_str(" then removes the volumes that the reason names");
    }
    todo
}

/// What stands behind a reason for which an operation ends by itself, if a lock is in the way: what is to
/// be done before another one can do better.
pub(super) fn unlocking(progress: &Progress, step: &str, reason: &str) -> Option<String> {
    let (node, vmid) = at(progress, step).filter(|_| is_locked(reason))?;
    Some(format!(
        "; on node {node}, see with `pct config {vmid}` which lock container {vmid} carries; when no task \
         works on it any more, an administrator has to run `pct unlock {vmid}`"
    ))
}

/// The container that a step is about, of those that the plan names.
fn at<'a>(progress: &'a Progress, step: &str) -> Option<(&'a NodeName, Vmid)> {
    let guest = match &progress.plan {
        Plan::Clone(plan) => &plan.source_guest,
        Plan::Restore(plan) if !OF_RESTORED.contains(&step) => &plan.original,
        plan => plan.guest()?,
    };
    Some((&guest.node, guest.vmid))
}

/// The same where the reason does not say all of it itself.
fn of_plan(progress: &Progress, guest: &GuestRef, step: &str, reason: &str) -> String {
    let GuestRef { node, vmid, .. } = guest;
    match &progress.plan {
        Plan::Clone(plan) => return clone_instructions(plan, step, reason),
        Plan::Restore(plan) => return restore_instructions(plan, step, reason),
        _ => {}
    }
    if was_seen_broken_off(reason) {
        // Unlocked, it would be an empty configuration that says nobody's name.
        format!(
            "the creation of container {vmid} on node {node} was broken off; when no task works on it \
             any more, run `pct unlock {vmid}` and `pct destroy {vmid} --purge`, then resume the \
             operation"
        )
    } else if is_locked(reason) {
        format!(
            "on node {node}, see with `pct config {vmid}` which lock container {vmid} carries; when no \
             task works on it any more, run `pct unlock {vmid}`, then resume the operation"
        )
    } else if is_not_ours(reason) {
        format!(
            "look at container {vmid} on node {node}: if it is this application's, put the marker \
             line back into its notes and resume; if it is not, abandon the operation"
        )
    } else {
        let instead = match &progress.plan {
            // It was to go anyway.
            Plan::Deploy(_) => "; or remove the container by hand and abandon it",
            Plan::Delete(plan) if plan.adopted_by.is_none() => {
                "; or remove the container by hand and abandon it"
            }
            _ => "; or abandon it, which leaves the container as it is",
        };
        format!(
            "the step `{step}` on container {vmid} of node {node} keeps failing: mend what the reason \
             names, then resume the operation{instead}"
        )
    }
}

/// The same for a copy, where two containers may be locked.
fn clone_instructions(plan: &ClonePlan, step: &str, reason: &str) -> String {
    let (node, source, copy) = (&plan.guest.node, plan.source_guest.vmid, plan.guest.vmid);
    let mut todo = if was_seen_broken_off(reason) {
        // It has its marker from its first moment, and its source's protection: whoever unlocks it can
        // leave the rest to us.
        format!(
            "the copying of container {source} into {copy} on node {node} was broken off; when no \
             task works on either any more, run `pct unlock {source}`, also if you abandon the operation, \
             since nothing can be done with that container before, and `pct unlock {copy}`, then resume \
             the operation, which destroys what there is of the copy"
        )
    } else if is_locked(reason) {
        format!(
            "on node {node}, see with `pct config {source}` which lock container {source} carries; \
             when no task works on it any more, run `pct unlock {source}`, then resume the operation"
        )
    } else {
        format!(
            "the step `{step}` of copying container {source} into {copy} on node {node} keeps \
             failing: mend what the reason names, then resume the operation"
        )
    };
    if let CloneWay::Snapshot { name } = &plan.way {
        let node = &plan.source_guest.node;
        todo.push_str(&format!(
            "; `pct delsnapshot {source} {name}` on node {node} removes the snapshot that the copy is made \
             from, also when you abandon the operation, which leaves it there"
        ));
    }
    todo
}

/// The same for a restore, where there are two containers or one that is half overwritten.
fn restore_instructions(plan: &RestorePlan, step: &str, reason: &str) -> String {
    let (node, new, old) = (&plan.guest.node, plan.guest.vmid, plan.original.vmid);
    let (broken_off, locked) = (was_seen_broken_off(reason), is_locked(reason));
    // Which of the two the step is about.
    let (at, vmid) =
        if OF_RESTORED.contains(&step) { (node, new) } else { (&plan.original.node, old) };
    match plan.way {
        // Unlocked, it would be an empty configuration that says nobody's name.
        RestoreWay::InPlace if broken_off => format!(
            "the restoring over container {old} on node {node} was broken off when its disks were gone \
             already; when no task works on it any more, run `pct unlock {old}` and \
             `pct destroy {old} --purge`, then resume the operation, which restores the archive again; \
             abandoning it instead does not help: what is left stays locked until that was done"
        ),
        RestoreWay::InPlace if locked => format!(
            "on node {node}, see with `pct config {old}` which lock container {old} carries; when no \
             task works on it any more, run `pct unlock {old}`, then resume the operation, which \
             restores the archive again"
        ),
        RestoreWay::InPlace => format!(
            "container {old} on node {node} may be gone, and the archive is still there: mend what the \
             reason names, then resume the operation, which goes on from `{step}` and restores the \
             archive again where it has to; or abandon it and restore the backup, not in place"
        ),
        RestoreWay::Swap if broken_off => format!(
            "the creation of container {vmid} on node {at} was broken off; when no task works on it any \
             more, run `pct unlock {vmid}` and `pct destroy {vmid} --purge`, then resume the operation"
        ),
        RestoreWay::Swap if locked => format!(
            "on node {at}, see with `pct config {vmid}` which lock container {vmid} carries; when no \
             task works on it any more, run `pct unlock {vmid}`, then resume the operation"
        ),
        RestoreWay::Swap => format!(
            "the step `{step}` of restoring container {old} into {new} on node {node} keeps failing: \
             mend what the reason names, then resume the operation"
        ),
    }
}

#[cfg(test)]
mod tests {
    use proximity_domain::operation::{Event, Operation};
    use proximity_domain::plan::{DeletePlan, Health, PowerPlan, Probe};
    use proximity_domain::{HostId, UserId};

    use super::*;

    const BY_PROXMOX: [&str; 6] = [
        "unable to create image: LINSTOR: resource creation failed",
        "mount: /mnt: can't read superblock on /dev/loop1",
        "POST /nodes/{node}/lxc: can't lock file '/run/lock/lxc/pve-config-104.lock' - got timeout",
        "storage: rbd: image is locked by a creation that never ended",
        "zfs error: cannot find the marker of the block device, it has left the pool",
        "nothing was restored: creation of the lock failed: the marker is gone",
    ];

    fn guest() -> GuestRef {
        GuestRef {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: 104.try_into().unwrap(),
        }
    }

    fn planned(plan: Plan) -> Operation {
        let planned = Event::Planned {
            application: "alpine-0a1b2c3d".parse().unwrap(),
            owner: UserId(1),
            plan,
            steps: vec!["start".to_owned()],
            deadline: 0,
        };
        Operation::default().evolve(planned)
    }

    fn told(plan: Plan, reason: &str) -> String {
        let operation = planned(plan);
        instructions(operation.progress().unwrap(), "start", reason)
    }

    fn power() -> PowerPlan {
        let health = Health { probe: Probe::Running, within_s: 1 };
        PowerPlan { guest: guest(), force: false, health }
    }

    fn deletion() -> Plan {
        Plan::Delete(DeletePlan {
            guest: Some(guest()),
            holdings: None,
            was_running: true,
            adopted_by: None,
            replaced: false,
            detached: false,
        })
    }

    #[test]
    fn nothing_that_proxmox_says_has_a_container_unlocked_or_destroyed() {
        for said in BY_PROXMOX {
            for plan in [Plan::Restart(power()), deletion()] {
                let todo = told(plan, said);
                assert!(!todo.contains("pct ") && !todo.contains("volumes"), "{said}: {todo}");
                assert!(todo.contains("keeps failing"), "{said}: {todo}");
            }
        }
    }

    #[test]
    fn a_creations_lock_that_was_seen_has_the_container_destroyed_and_another_only_unlocked() {
        let seen = "the container is locked by a creation that no task works on";
        let todo = told(deletion(), seen);
        assert!(todo.contains("`pct destroy 104 --purge`") && !todo.contains("volumes"), "{todo}");
        let left = format!("{seen}; it has left local:104/vm-104-disk-0.raw");
        assert!(
            told(deletion(), &left).ends_with("then removes the volumes that the reason names")
        );
        for said in [
            "the container carries the lock `backup`",
            "the container does not run: CT is locked (backup)",
        ] {
            let todo = told(deletion(), said);
            assert!(todo.contains("`pct unlock 104`") && !todo.contains("destroy"), "{todo}");
        }
    }

    #[test]
    fn what_is_left_on_a_storage_that_lists_nothing_is_a_persons() {
        let seen = "the container is locked by a creation that no task works on";
        let said = unlisted::said("local-lvm");
        let todo =
            told(deletion(), &format!("{seen}; it has left local-lvm:vm-104-disk-0; {said}"));
        assert!(!todo.contains("then removes") && todo.contains("`vm-104-disk-`"), "{todo}");
        assert!(todo.contains("before you resume or abandon it"), "{todo}");
        let known = ["vm-104-disk-0"].into();
        let todo =
            told(deletion(), &unlisted::unseen(&guest(), &["local-lvm".to_owned()].into(), &known));
        assert!(todo.starts_with("on node pve1, let the storage take"), "{todo}");
    }

    #[test]
    fn an_operation_that_a_lock_has_ended_says_how_it_is_taken_off() {
        let hint = |reason: &str| {
            let operation = planned(Plan::Restart(power()));
            unlocking(operation.progress().unwrap(), "stop", reason)
        };
        let todo = hint("the container still runs: CT is locked (disk)").unwrap();
        assert!(todo.contains("an administrator has to run `pct unlock 104`"), "{todo}");
        for said in BY_PROXMOX {
            assert_eq!(hint(said), None);
        }
    }

    #[test]
    fn only_what_was_to_go_anyway_is_to_be_removed_by_hand() {
        let todo = told(Plan::Restart(power()), "no answer");
        assert!(!todo.contains("remove the container") && todo.contains("as it is"), "{todo}");
        assert!(told(deletion(), "no answer").contains("remove the container by hand"));
        let not_ours =
            "container 104 does not carry the marker of this application, so it is not touched";
        assert!(told(deletion(), not_ours).contains("put the marker line back"));
    }
}
