//! An operation's events as sentences for the application's owner.

use proximity_domain::operation::{Direction, Event, FailureClass, Finding};

use super::Operation;

/// What is told about one event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub level: &'static str,
    pub message: String,
    pub step: Option<String>,
}

const INFO: &str = "INFO";
const WARNING: &str = "WARNING";
const ERROR: &str = "ERROR";
const SUCCESS: &str = "SUCCESS";

/// The sentence for an event; `operation` already holds what the event changed.
pub(super) fn line(operation: &Operation, event: &Event) -> Line {
    let about = |step: &str| Some(step.to_owned());
    let (level, message, step) = match event {
        Event::Planned { .. } => (INFO, plan_sentence(operation), None),
        Event::StepIntended { step, direction, attempt, stood: _, site: _ } => {
            let doing = doing(step, *direction);
            match attempt {
                0 | 1 => (INFO, format!("{doing}."), about(step)),
                _ => (INFO, format!("{doing}, attempt {attempt}."), about(step)),
            }
        }
        Event::TaskStarted { step, direction: _, upid } => {
            (INFO, format!("Proxmox works on it as task {upid}."), about(step))
        }
        Event::StepSucceeded { step, direction, attempt: _, found } => {
            let mut message = format!("{}: done", doing(step, *direction));
            match found {
                Some(Finding::Archive { volume, digest: _ }) => {
                    message.push_str(&format!(", using {volume}"));
                }
                Some(Finding::Backup(archive)) => {
                    message.push_str(&format!(
                        ", stored as {} in mode {}",
                        archive.volume,
                        archive.mode.as_str()
                    ));
                }
                Some(Finding::Address(address)) => {
                    message.push_str(&format!(", its address is {address}"));
                }
                None => {}
            }
            message.push('.');
            (SUCCESS, message, about(step))
        }
        Event::StepFailed { step, direction, attempt, failure, retry_at } => {
            let doing = doing(step, *direction);
            let said = failure.message.trim_end_matches('.');
            let unknown = failure.class == FailureClass::Unknown;
            let ended = if unknown { "ended without an answer" } else { "failed" };
            match retry_at {
                Some(_) => (
                    WARNING,
                    format!("{doing} {ended} (attempt {attempt}): {said}. It will be tried again."),
                    about(step),
                ),
                None => {
                    (ERROR, format!("{doing} {ended} (attempt {attempt}): {said}."), about(step))
                }
            }
        }
        Event::PlanChanged { plan: _, reason } => {
            let target = target(operation);
            (WARNING, format!("The plan had to change: {}. It is now {target}.", dot(reason)), None)
        }
        Event::CancelRequested { by: _, reason } => (
            WARNING,
            format!("It was asked to stop and take everything back: {}.", dot(reason)),
            None,
        ),
        Event::UnwindingBegan { reason } => {
            (WARNING, format!("Taking everything back: {}.", dot(reason)), None)
        }
        Event::Completed => (SUCCESS, done_sentence(operation), None),
        Event::Undone { reason } => {
            (ERROR, format!("The {} was undone: {}.", operation.kind, dot(reason)), None)
        }
        Event::Stuck { step, direction: _, reason, instructions } => (
            ERROR,
            format!(
                "The {} is stuck: {}. An operator has to act: {}.",
                operation.kind,
                dot(reason),
                dot(instructions)
            ),
            about(step),
        ),
        Event::Resumed { by: _, note } => {
            (INFO, with_note(format!("The {} goes on", operation.kind), note), None)
        }
        Event::Abandoned { by: _, note } => {
            (ERROR, with_note(format!("The {} was given up", operation.kind), note), None)
        }
    };
    Line { level, message, step }
}

fn dot(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

fn with_note(sentence: String, note: &str) -> String {
    if note.is_empty() { format!("{sentence}.") } else { format!("{sentence}: {}.", dot(note)) }
}

/// `container 104 on node pve1`
fn target(operation: &Operation) -> String {
    match (operation.vmid, operation.node.as_deref()) {
        (Some(vmid), Some(node)) => format!("container {vmid} on node {node}"),
        _ => "without a container".to_owned(),
    }
}

fn plan_sentence(operation: &Operation) -> String {
    let named = operation.hostname.as_deref().unwrap_or(&operation.app);
    match operation.kind.as_str() {
        "deploy" => format!("Deployment of {named} planned as {}.", target(operation)),
        "delete" => format!("Removal of {named} planned ({}).", target(operation)),
        "clone" => format!("A copy is planned: {named}, as {}.", target(operation)),
        "adopt" => format!("The adoption of {} as {named} is planned.", target(operation)),
        "backup-delete" => "The removal of a backup is planned.".to_owned(),
        kind => format!("A {kind} of {} is planned.", target(operation)),
    }
}

fn done_sentence(operation: &Operation) -> String {
    match operation.kind.as_str() {
        "deploy" => format!("Deployed: {} runs and answers.", target(operation)),
        "delete" => "Removed: nothing is held for it any more.".to_owned(),
        "start" => format!("Started: {} runs and answers.", target(operation)),
        "backup" => format!("Backed up: {} is stored.", target(operation)),
        "backup-delete" => "The backup is removed.".to_owned(),
        "restore" => format!("Restored: {} is as the backup has it.", target(operation)),
        "stop" => format!("Stopped: {} does not run any more.", target(operation)),
        "restart" => format!("Restarted: {} runs and answers.", target(operation)),
        "clone" => format!("Copied: {} is there.", target(operation)),
        "adopt" => format!("Adopted: {} is managed from now on.", target(operation)),
        kind => format!("The {kind} is done."),
    }
}

/// What a step does, in words; a step that is not listed is told by its own name.
fn doing(step: &str, direction: Direction) -> String {
    let known = match (step, direction) {
        ("ensure_template", Direction::Act) => "Getting the system template",
        ("ensure_oci_image", Direction::Act) => "Pulling the image",
        ("create_container", Direction::Act) => "Creating the container",
        ("create_container", Direction::Undo) => "Removing the container again",
        ("start", Direction::Act) => "Starting the container",
        ("start", Direction::Undo) => "Stopping the container again",
        ("stop", Direction::Act) => "Stopping the container",
        ("stop", Direction::Undo) => "Starting the container again",
        ("create_backup", Direction::Act) => "Storing the container",
        ("create_backup", Direction::Undo) => "Removing what was stored",
        ("check_backup", Direction::Act) => "Looking for the archive",
        ("delete_backup", Direction::Act) => "Removing the archive",
        ("check_archive", Direction::Act) => "Looking for the archive",
        ("restore_container", Direction::Act) => "Restoring the archive into a new container",
        ("restore_container", Direction::Undo) => "Removing the restored container again",
        ("stop_original", Direction::Act) => "Stopping the container that is replaced",
        ("stop_original", Direction::Undo) => "Starting the container again",
        ("stop_restored", Direction::Act) => "Stopping the restored container",
        ("swap", Direction::Act) => "Putting the restored container in the old one's place",
        ("destroy_original", Direction::Act) => "Removing the container that was replaced",
        ("unprotect_original", Direction::Act) => "Taking the protection off",
        ("unprotect_original", Direction::Undo) => "Putting the protection back",
        ("overwrite", Direction::Act) => "Overwriting the container with the archive",
        ("wait_healthy", Direction::Act) => "Waiting until the application answers",
        ("unprotect", Direction::Act) => "Taking the protection off",
        ("unprotect", Direction::Undo) => "Putting the protection back",
        ("destroy", Direction::Act) => "Removing the container",
        ("snapshot_source", Direction::Act) => "Taking a snapshot of the original",
        ("snapshot_source", Direction::Undo) => "Removing the snapshot of the original again",
        ("clone_container", Direction::Act) => "Copying the container",
        ("clone_container", Direction::Undo) => "Removing the copy again",
        ("remove_snapshot", Direction::Act) => "Removing the snapshot of the original",
        ("stop_source", Direction::Act) => "Stopping the original",
        ("stop_source", Direction::Undo) => "Starting the original again",
        ("start_source", Direction::Act) => "Starting the original again",
        ("configure_clone", Direction::Act) => "Giving the copy an address of its own",
        ("mark_container", Direction::Act) => "Marking the container as managed",
        ("mark_container", Direction::Undo) => "Taking the mark off the container again",
        ("unmark_container", Direction::Act) => "Giving the container back: taking our mark off",
        ("release_leases" | "release", Direction::Act) => "Giving back name, number and ports",
        ("release_leases" | "release", Direction::Undo) => "Taking name, number and ports again",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let name = step.replace('_', " ");
    match direction {
        Direction::Act => format!("Step “{name}”"),
        Direction::Undo => format!("Taking back step “{name}”"),
    }
}
