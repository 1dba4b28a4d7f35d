//! Which calls a step makes, and the simulator's rules for each numbered fault.

use proximity_simulator::{Fault, FaultRule};

use super::cell::{Cell, Disturbance, Saga};

/// The calls that a fault of this cell strikes; none for an undo that asks nobody.
fn calls(cell: Cell) -> &'static [&'static str] {
    let undo = matches!(cell.disturbance, Disturbance::Undo(_));
    match (cell.saga, cell.step, undo) {
        (_, "ensure_template", false) => &["template.download"],
        (_, "ensure_oci_image", false) => &["oci.pull"],
        (_, "create_container", false) => &["container.create"],
        (_, "create_container", true) => &["container.destroy"],
        (_, "stop" | "stop_source", false) => &["container.shutdown", "container.stop"],
        (_, "stop" | "stop_source", true) => &["container.start"],
        // Left to the undo of its stop.
        (Saga::Restart, "start", true) => &[],
        (_, "start", false) => &["container.start"],
        (_, "start", true) => &["container.stop"],
        (_, "start_source", false) => &["container.start"],
        (_, "snapshot_source", false) => &["snapshot.create"],
        (_, "snapshot_source", true) => &["snapshot.delete"],
        (_, "clone_container", false) => &["container.clone"],
        (_, "clone_container", true) => &["container.destroy"],
        (_, "remove_snapshot", false) => &["snapshot.delete"],
        (_, "configure_clone", false) => &["container.configure"],
        (_, "mark_container" | "unmark_container", _) => &["container.configure"],
        (_, "remove_snapshot" | "start_source" | "configure_clone", true) => &[],
        (_, "wait_healthy", false) => &["container.interfaces"],
        (_, "unprotect", _) => &["container.configure"],
        (_, "destroy", false) => &["container.destroy"],
        (_, "create_backup", false) => &["backup.create"],
        (_, "create_backup", true) => &["content.delete"],
        (_, "check_backup" | "check_archive", false) => &["content.list"],
        (_, "check_backup" | "check_archive", true) => &[],
        (_, "restore_container" | "overwrite", false) => &["container.create"],
        (_, "restore_container", true) => &["container.destroy"],
        (_, "stop_original", false) => &["container.shutdown", "container.stop"],
        (_, "stop_original", true) => &["container.start"],
        (_, "unprotect_original", _) => &["container.configure"],
        (_, "destroy_original", false) => &["container.destroy"],
        // One append, and a look that others make as well.
        (_, "swap", false) => &[],
        (_, "delete_backup", false) => &["content.delete"],
        // They give back a lease, or nothing at all: Proxmox is not asked.
        (_, "ensure_template" | "ensure_oci_image" | "wait_healthy", true) => &[],
        (saga, step, undo) => panic!("say what {saga:?} {step} asks of Proxmox (undo: {undo})"),
    }
}

/// Whether a step is struck by the script alone, since it makes no call of its own.
pub fn asks_nobody(cell: Cell) -> bool {
    calls(cell).is_empty()
}

/// Whether the struck call starts a task; the others are answered when they are done.
fn has_task(cell: Cell) -> bool {
    !matches!(
        cell.step,
        "wait_healthy"
            | "unprotect"
            | "check_backup"
            | "check_archive"
            | "unprotect_original"
            | "configure_clone"
            | "mark_container"
            | "unmark_container"
    )
}

/// What the simulator has to do for this cell; empty when the fault is not the simulator's.
pub fn rules(cell: Cell) -> Vec<FaultRule> {
    let mut rules: Vec<FaultRule> =
        calls(cell).iter().flat_map(|call| rules_for(cell, call)).collect();
    // Source and copy are started and stopped by the same calls.
    let guest = match (cell.saga, cell.step) {
        (Saga::CloneLive | Saga::CloneDown | Saga::Restore, "start") => "/lxc/105/",
        (Saga::Restore, "restore_container") if !rules.is_empty() => match cell.disturbance {
            Disturbance::Undo(_) => "/lxc/105",
            Disturbance::Forward(_) => return rules,
        },
        (Saga::Restore, "stop_original") => "/lxc/104/",
        (Saga::Restore, "destroy_original") => "/lxc/104",
        (Saga::CloneDown, "stop_source" | "start_source") => "/lxc/104/",
        _ => return rules,
    };
    for rule in &mut rules {
        rule.when.path = Some(guest.to_owned());
    }
    rules
}

fn rules_for(cell: Cell, call: &str) -> Vec<FaultRule> {
    let once = |fault| vec![FaultRule::once(call, fault)];
    let status = |status| Fault::Status { status, reason: None, after_effect: false };
    let locked = || Fault::Status {
        status: 500,
        reason: Some("CT is locked (backup)".to_owned()),
        after_effect: false,
    };
    match cell.disturbance {
        Disturbance::Forward(1) => vec![FaultRule::forever(call, status(403))],
        Disturbance::Forward(2) => once(status(500)),
        Disturbance::Forward(3) => {
            [595, 596, 599].into_iter().flat_map(|s| once(status(s))).collect()
        }
        Disturbance::Forward(4) => once(Fault::NoReplyBeforeEffect),
        Disturbance::Forward(5) => once(Fault::NoReplyAfterEffect),
        Disturbance::Forward(6) => once(Fault::CutMidBody),
        Disturbance::Forward(7) => once(Fault::AppliedTwice { second_answer: true }),
        Disturbance::Forward(8) => once(Fault::WrongTypes),
        Disturbance::Forward(9) if has_task(cell) => {
            once(Fault::TaskNeverEnds { after_effect: false })
        }
        Disturbance::Forward(10) if has_task(cell) => once(Fault::TaskDies { after_effect: false }),
        Disturbance::Forward(11) if has_task(cell) => once(Fault::TaskWarns),
        // What a step without a task of its own waits for, and how that goes wrong.
        Disturbance::Forward(9) if cell.step == "wait_healthy" => {
            vec![FaultRule::forever(call, Fault::EmptyList)]
        }
        Disturbance::Forward(10) if cell.step == "wait_healthy" => once(Fault::NullData),
        Disturbance::Forward(11) if cell.step == "wait_healthy" => once(Fault::EmptyList),
        Disturbance::Forward(9) => once(Fault::Slow { ms: 1_500 }),
        Disturbance::Forward(10) => vec![FaultRule::count(call, 2, locked())],
        Disturbance::Forward(11) => once(Fault::HtmlPage),
        Disturbance::Forward(12) => once(Fault::Unauthorized),
        Disturbance::Undo(1) => once(status(500)),
        Disturbance::Undo(2) => vec![FaultRule::count(call, 3, status(500))],
        Disturbance::Undo(3) => once(Fault::AppliedTwice { second_answer: true }),
        Disturbance::Undo(5) => vec![FaultRule::forever(call, status(500))],
        // Deaths, databases and callers are not the simulator's business.
        Disturbance::Forward(_) | Disturbance::Undo(_) => Vec::new(),
    }
}
