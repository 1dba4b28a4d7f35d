//! The route table: every call there is, who may make it, and the one function that answers it.

use super::handlers::{
    access, apps, auth, backup_schedules, backups, catalog, copies, core, docs, health, history,
    hosts, operations, past, reconcile, restore, settings, trace, usage, users, verification,
};
use super::route::{Policy, Route, Verb};

macro_rules! routes {
    ($(
        $verb:ident $path:literal $policy:ident $handler:path
        $(, $header:literal)* $(: $($code:literal)+)?;
    )*) => {
        &[$(Route {
            verb: Verb::$verb,
            path: $path,
            name: concat!(stringify!($verb), " ", $path),
            policy: Policy::$policy,
            headers: &[$($header),*],
            codes: &[$($($code),+)?],
            handler: |call| Box::pin($handler(call)),
            handler_name: stringify!($handler),
        }),*]
    };
}

/// All routes; the order is the order of the documentation. After a handler stand the headers that its
/// success carries, then the codes that its refusals have.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    Get    "/healthz"                       Public   health::alive;
    Get    "/readyz"                        Public   health::ready;
    Get    "/metrics"                       Public   health::metrics: "identity.required";
    Get    "/api/health"                    Public   health::api;
    Get    "/api/core/health"               Public   health::api_core;
    Get    "/api/openapi.json"              Public   core::openapi, "ETag";
    Get    "/api/docs"                      Public   docs::page, "ETag";
    Get    "/api/docs/page.js"              Public   docs::script, "ETag";
    Get    "/api/docs/page.css"             Public   docs::style, "ETag";
    Get    "/problems/{code}"               Public   core::problem_page: "not_found";
    Get    "/api/core/system/info"          Public   core::system_info;

    Post   "/api/auth/login"                Public   auth::login: "username.missing" "login.failed" "login.limited" "login.busy";
    Post   "/api/auth/logout"               Optional auth::logout;
    Get    "/api/auth/user"                 User     auth::user, "ETag";
    Put    "/api/auth/user"                 Person    auth::put_user: "name.invalid" "email.invalid" "user.email_taken" "precondition.failed";
    Patch  "/api/auth/user"                 Person    auth::patch_user: "name.invalid" "email.invalid" "user.email_taken" "precondition.failed";
    Post   "/api/auth/registration"         Public   auth::registration: "registration.closed" "setup_token.invalid" "username.invalid" "username.missing" "email.invalid" "user.username_taken" "user.email_taken" "password.mismatch" "password.missing" "password.too_short" "password.too_long" "password.numeric" "password.like_username" "login.busy";
    Post   "/api/auth/token/refresh"        Public   auth::refresh: "identity.required";
    Post   "/api/auth/token/verify"         Public   auth::verify: "identity.required";
    Post   "/api/auth/password/change"      Person    auth::change_password: "password.wrong" "password.mismatch" "password.changed_meanwhile" "login.limited" "password.missing" "password.too_short" "password.too_long" "password.numeric" "password.like_username" "login.busy";
    Get    "/api/auth/sessions"             Person   access::sessions;
    Delete "/api/auth/sessions/{id}"        Person   access::end_session;
    Get    "/api/auth/tokens"               Person   access::tokens;
    Post   "/api/auth/tokens"               Person   access::create_token: "api_token.name_invalid" "api_token.scope_invalid" "api_token.expiry_invalid" "api_token.too_many" "admin.required";
    Delete "/api/auth/tokens/{id}"          Person   access::revoke_token;
    Get    "/api/users"                     Admin    users::list;
    Post   "/api/users"                     Admin    users::create, "ETag": "username.invalid" "email.invalid" "user.username_taken" "user.email_taken" "password.missing" "password.too_short" "password.too_long" "password.numeric" "password.like_username" "login.busy";
    Patch  "/api/users/{id}"                Admin    users::change, "ETag": "user.last_admin" "user.state" "precondition.failed";
    Post   "/api/users/{id}/reset-password" Admin    users::reset_password: "password.changed_meanwhile" "login.busy" "precondition.failed";

    Get    "/api/catalog"                   Public   catalog::list, "ETag";
    Get    "/api/catalog/categories"        Public   catalog::categories;
    Get    "/api/catalog/search"            Public   catalog::search, "ETag";
    Get    "/api/catalog/stats"             Public   catalog::stats;
    Get    "/api/catalog/category/{category}" Public catalog::category, "ETag";
    Get    "/api/catalog/{id}"              Public   catalog::get, "ETag": "not_found";
    Post   "/api/catalog/reload"            Admin    catalog::reload;

    Get    "/api/apps"                      User     apps::list: "query.out_of_range";
    Post   "/api/apps"                      User     apps::create, "Location": "port.invalid" "hostname.invalid" "hostname.taken" "catalog.unknown" "catalog.install_unsupported" "param.required" "param.invalid" "environment.name_invalid" "environment.value_invalid" "environment.too_many" "node.invalid" "nodes.none_online" "nodes.no_storage" "ports.exhausted" "vmids.exhausted" "addresses.exhausted" "pools.contended" "host.unknown" "host.gone" "node.unknown" "node.offline" "catalog.needs_newer_proxmox";
    Get    "/api/apps/discover"             Admin    copies::discover: "query.out_of_range" "host.unknown" "proxmox.incomplete" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Post   "/api/apps/adopt"                Admin    copies::adopt, "Location": "host.unknown" "vmid.invalid" "node.invalid" "node.unknown" "node.ambiguous" "port.invalid" "hostname.invalid" "hostname.taken" "vmid.taken" "suggested_type.invalid" "container.unknown" "container.managed" "container.managed_elsewhere" "container.template" "container.locked" "container.notes_too_long" "container.unreadable" "host.gone" "hosts.unreachable" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Get    "/api/apps/{id}"                 Owner    apps::get, "ETag": "position.unknown";
    Delete "/api/apps/{id}"                 Owner    apps::delete, "Location": "application.busy" "operation.stuck" "precondition.failed";
    Post   "/api/apps/{id}/action"          Owner    apps::action, "Location": "action.unknown" "application.busy" "operation.stuck" "application.only_deletable" "application.not_running" "application.container_missing" "precondition.failed";
    Post   "/api/apps/{id}/clone"           Owner    copies::clone, "Location": "precondition.failed" "hostname.invalid" "hostname.taken" "application.busy" "operation.stuck" "application.only_deletable" "application.container_missing" "clone.needs_downtime" "host.gone" "ports.exhausted" "vmids.exhausted" "addresses.exhausted" "pools.contended" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Get    "/api/apps/{id}/logs"            Owner    apps::logs: "query.out_of_range";
    Get    "/api/apps/{id}/stats"           Owner    usage::stats: "query.out_of_range";
    Get    "/api/apps/{id}/history"         Owner    history::of_app;
    Get    "/api/apps/{id}/diff"            Owner    past::diff: "query.out_of_range";
    Get    "/api/audit/events"              User     history::audit: "query.out_of_range" "value.invalid" "position.unknown" "not_found" "stream.too_many";
    Get    "/api/audit/trace/{id}"          Owner    trace::of_request: "not_found";
    Get    "/api/audit/verify"              Admin    verification::verify: "query.out_of_range";
    Get    "/api/events/stream"             User     history::stream: "stream.too_many";

    Get    "/api/apps/{id}/backups"         Owner    backups::list: "query.out_of_range";
    Post   "/api/apps/{id}/backups"         Owner    backups::create, "Location": "precondition.failed" "application.busy" "operation.stuck" "application.only_deletable" "application.container_missing" "backup.type_invalid" "backup.compression_invalid" "backup.no_storage" "nodes.none_online";
    Get    "/api/apps/{id}/backups/stats"   Owner    backups::stats;
    Get    "/api/apps/{id}/backups/{backup_id}" Owner backups::get, "ETag";
    Delete "/api/apps/{id}/backups/{backup_id}" Owner backups::delete, "Location": "application.busy" "operation.stuck" "backup.busy" "host.gone" "precondition.failed";
    Post   "/api/apps/{id}/backups/{backup_id}/restore" Owner backups::restore, "Location": "application.busy" "operation.stuck" "application.only_deletable" "application.container_missing" "backup.busy" "backup.only_deletable" "backup.application_gone" "backup.archive_missing" "restore.no_space" "restore.no_storage" "restore.would_lose_volumes" "restore.needs_root" "host.gone" "nodes.none_online" "vmids.exhausted" "pools.contended" "precondition.failed" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Get    "/api/backups"                   User     backups::list_all: "query.out_of_range";

    Get    "/api/backup-schedules"          User     backup_schedules::list: "query.out_of_range";
    Post   "/api/backup-schedules"          User     backup_schedules::create, "Location": "backup_schedule.cron_invalid" "backup_schedule.timezone_invalid" "backup_schedule.keep_invalid" "backup_schedule.application_unknown" "backup_schedule.too_many" "backup.type_invalid" "backup.compression_invalid";
    Get    "/api/backup-schedules/{id}"     Owner    backup_schedules::get, "ETag";
    Put    "/api/backup-schedules/{id}"     Owner    backup_schedules::change, "ETag": "backup_schedule.cron_invalid" "backup_schedule.timezone_invalid" "backup_schedule.keep_invalid" "backup_schedule.application_fixed" "backup.type_invalid" "backup.compression_invalid" "precondition.failed";
    Delete "/api/backup-schedules/{id}"     Owner    backup_schedules::delete: "precondition.failed";

    Get    "/api/operations"                User     operations::list: "query.out_of_range";
    Get    "/api/operations/{id}"           Owner    operations::get, "ETag";
    Post   "/api/operations/{id}/resume"    Admin    operations::resume: "operation.not_stuck" "operation.ended" "note.invalid" "precondition.failed";
    Post   "/api/operations/{id}/cancel"    Owner    operations::cancel: "operation.ended" "operation.past_pivot" "operation.stuck" "note.invalid" "precondition.failed";
    Post   "/api/operations/{id}/abandon"   Admin    operations::abandon: "operation.not_stuck" "operation.ended" "note.invalid" "precondition.failed";

    Get    "/api/proxmox/hosts"             User     hosts::list;
    Post   "/api/proxmox/hosts"             Admin    hosts::create, "Location": "host.name_taken" "host.cluster_taken" "host.credential_required" "host.credential_invalid" "host.name_invalid" "host.address_invalid" "host.user_invalid" "fingerprint.invalid" "port.invalid" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Get    "/api/proxmox/hosts/{id}"        User     hosts::get, "ETag";
    Put    "/api/proxmox/hosts/{id}"        Admin    hosts::change: "host.name_taken" "host.name_invalid" "host.address_invalid" "host.user_invalid" "fingerprint.invalid" "port.invalid" "host.other_cluster" "host.default_must_be_active" "host.credential_required" "host.credential_invalid" "precondition.failed" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused" "host.changed_meanwhile";
    Delete "/api/proxmox/hosts/{id}"        Admin    hosts::delete: "host.in_use" "precondition.failed";
    Post   "/api/proxmox/hosts/{id}/test"   Admin    hosts::test: "precondition.failed" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Post   "/api/proxmox/hosts/{id}/sync-nodes" Admin hosts::sync_nodes: "precondition.failed" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Post   "/api/proxmox/hosts/{id}/reconcile" Admin reconcile::now: "precondition.failed" "proxmox.unreachable" "proxmox.unauthorized" "proxmox.certificate" "proxmox.malformed" "proxmox.refused";
    Get    "/api/proxmox/hosts/{id}/discrepancies" Admin reconcile::discrepancies;
    Get    "/api/proxmox/nodes"             User     hosts::nodes: "query.out_of_range";

    Get    "/api/core/restore"              Admin    restore::status;
    Post   "/api/core/restore/confirm"      Admin    restore::confirm: "restore.nothing_to_confirm";
    Get    "/api/core/settings/resources"   User     settings::resources, "ETag";
    Post   "/api/core/settings/resources"   Admin    settings::change_resources: "cores.invalid" "mebibytes.invalid" "gibibytes.invalid" "precondition.failed";
    Get    "/api/core/settings/network"     User     settings::network, "ETag";
    Post   "/api/core/settings/network"     Admin    settings::change_network: "subnet.invalid" "gateway.invalid" "gateway.outside_subnet" "dns.invalid" "bridge.invalid" "precondition.failed";
};
