//! Every kind of event that was ever stored, with its version: what this program can read.

/// Type and version, in order; each has its file in `fixtures/events`.
pub static EVENTS: &[(&str, &str)] = &[
    ("admin_action.performed", "1"),
    ("api_token.issued", "1"),
    ("api_token.revoked", "1"),
    ("application.adopted", "1"),
    ("application.clone_ready", "1"),
    ("application.cloned", "1"),
    ("application.deployed", "1"),
    ("application.deployment_failed", "1"),
    ("application.guest_swapped", "1"),
    ("application.lost", "1"),
    ("application.observed", "1"),
    ("application.operation_abandoned", "1"),
    ("application.operation_began", "1"),
    ("application.operation_ended", "1"),
    ("application.operation_failed", "1"),
    ("application.operation_stuck", "1"),
    ("application.protected", "1"),
    ("application.removed", "1"),
    ("application.requested", "1"),
    ("application.restarted", "1"),
    ("application.restored", "1"),
    ("application.started", "1"),
    ("application.stopped", "1"),
    ("application.vmid_replaced", "1"),
    ("backup.completed", "1"),
    ("backup.deleted", "1"),
    ("backup.failed", "1"),
    ("backup.operation_began", "1"),
    ("backup.operation_ended", "1"),
    ("backup.requested", "1"),
    ("backup_run.began", "1"),
    ("backup_run.closed", "1"),
    ("backup_run.deferred", "1"),
    ("backup_run.ended", "1"),
    ("backup_run.planned", "1"),
    ("backup_run.pruning_began", "1"),
    ("backup_schedule.changed", "1"),
    ("backup_schedule.created", "1"),
    ("backup_schedule.deleted", "1"),
    ("backup_schedule.fired", "1"),
    ("backup_schedule.passed_over", "1"),
    ("backup_schedule.run_ended", "1"),
    ("call.changed_nothing", "1"),
    ("call.repeated", "1"),
    ("host.changed", "1"),
    ("host.discrepancies_observed", "1"),
    ("host.nodes_observed", "1"),
    ("host.registered", "1"),
    ("host.removed", "1"),
    ("host.suspended", "1"),
    ("keys.destroyed", "1"),
    ("keys.rotated", "1"),
    ("keys.rotation_began", "1"),
    ("lease.acquired", "1"),
    ("lease.cleared", "1"),
    ("lease.found_foreign", "1"),
    ("lease.quarantined", "1"),
    ("lease.released", "1"),
    ("log.restore_confirmed", "1"),
    ("log.restored", "1"),
    ("operation.abandoned", "1"),
    ("operation.cancel_requested", "1"),
    ("operation.completed", "1"),
    ("operation.plan_changed", "1"),
    ("operation.planned", "1"),
    ("operation.resumed", "1"),
    ("operation.step_failed", "1"),
    ("operation.step_intended", "1"),
    ("operation.step_succeeded", "1"),
    ("operation.stuck", "1"),
    ("operation.task_started", "1"),
    ("operation.undone", "1"),
    ("operation.unwinding_began", "1"),
    ("refusal.counted", "1"),
    ("refusal.counted", "2"),
    ("refusal.counted", "3"),
    ("secret_use.counted", "1"),
    ("secret_use.counted", "2"),
    ("session.ended", "1"),
    ("session.opened", "1"),
    ("session.refreshed", "1"),
    ("settings.network_changed", "1"),
    ("settings.resources_changed", "1"),
    ("user.disabled", "1"),
    ("user.enabled", "1"),
    ("user.logged_in", "1"),
    ("user.password_changed", "1"),
    ("user.profile_changed", "1"),
    ("user.registered", "1"),
    ("user.role_changed", "1"),
];

/// Whether this program reads such an event.
pub fn is_known(event_type: &str, event_version: &str) -> bool {
    EVENTS.binary_search(&(event_type, event_version)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn what_is_known_is_what_has_a_fixture() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/events");
        let mut fixtures: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .into_string()
                    .unwrap()
                    .strip_suffix(".json")
                    .map(str::to_owned)
            })
            .collect();
        fixtures.sort_by_key(|name| {
            let (kind, version) = name.rsplit_once(".v").unwrap();
            (kind.to_owned(), version.to_owned())
        });
        let known: Vec<String> =
            EVENTS.iter().map(|(kind, version)| format!("{kind}.v{version}")).collect();
        assert_eq!(known, fixtures);
        assert!(EVENTS.is_sorted());
        assert!(is_known("log.restored", "1") && !is_known("log.restored", "2"));
        assert!(!is_known("log.forgotten", "1"));
    }
}
