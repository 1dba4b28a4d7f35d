//! The OpenAPI document: made from the handlers, completed from the route table.

mod headers;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::codes;
use super::dry::{self, DryCall, DryEvent, DryLease, DryRun};
use super::handlers::{
    access, apps, auth, backup_schedules, backups, catalog, copies, core, docs, health, history,
    hosts, operations, past, reconcile, restore, settings, trace, usage, users, verification,
};
use super::problem::{Body, Field, PROBLEM_JSON, Problem, chain};
use super::route::{CHANGED, Policy, Route};
use super::routes::ROUTES;

/// Codes that any call may answer with.
const SHARED: &[&str] = &[
    "accept.unsatisfiable",
    "body.malformed",
    "body.too_large",
    "body.unsupported",
    "internal",
    "position.unknown",
    "query.malformed",
    "query.unknown",
    "request.malformed",
    "request.timeout",
    "server.busy",
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Proximity",
        description = "Deploys applications as LXC containers on Proxmox VE. Each path is accepted \
            with and without a trailing slash. Errors have one shape, `Problem`; each `code` has a \
            page under `/problems/{code}`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    paths(
        health::alive, health::ready, health::metrics, health::api, health::api_core,
        docs::page, docs::script, docs::style, core::openapi, core::problem_page, core::system_info,
        catalog::list, catalog::get, catalog::categories, catalog::search, catalog::category,
        catalog::stats, catalog::reload,
        auth::login, auth::logout, auth::user, auth::put_user, auth::patch_user,
        auth::registration, auth::refresh, auth::verify, auth::change_password,
        access::sessions, access::end_session, access::tokens, access::create_token,
        access::revoke_token,
        users::list, users::create, users::change, users::reset_password,
        apps::list, apps::create, apps::get, apps::delete, apps::action, apps::logs, usage::stats, history::of_app, past::diff, history::audit, trace::of_request,
        history::stream, verification::verify,
        copies::clone, copies::discover, copies::adopt,
        backups::list_all, backups::list, backups::create, backups::stats, backups::get,
        backups::delete, backups::restore,
        backup_schedules::list, backup_schedules::create, backup_schedules::get,
        backup_schedules::change, backup_schedules::delete,
        operations::list, operations::get, operations::resume, operations::cancel,
        operations::abandon,
        hosts::list, hosts::create, hosts::get, hosts::change, hosts::delete, hosts::test,
        hosts::sync_nodes, hosts::nodes, reconcile::now, reconcile::discrepancies,
        restore::status, restore::confirm,
        settings::resources, settings::change_resources, settings::network,
        settings::change_network,
    ),
    components(schemas(Body<'_>, Field, DryRun, DryEvent, DryLease, DryCall)),
)]
struct Document;

/// How the description of a body begins that need not be sent.
const OPTIONAL_BODY: &str = "May be left out";

/// The document as it is served and kept in the repository.
pub fn json() -> Result<String, Problem> {
    render().map_err(|error| {
        tracing::error!(error = chain(&error), "the OpenAPI document could not be made");
        Problem::internal()
    })
}

/// Pretty-printed, with a line feed at the end.
pub fn render() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&document()?)? + "\n")
}

/// The document, complete.
pub fn document() -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(Document::openapi())?;
    document["components"]["securitySchemes"] = json!({
        "bearer": {
            "type": "http", "scheme": "bearer",
            "description": "An access token of a login, or a personal API token."
        },
        "cookie": {
            "type": "apiKey", "in": "cookie", "name": super::cookies::ACCESS,
            "description": "What a login sets. Unsafe calls then need the header `X-CSRFToken`."
        },
    });
    document["components"]["headers"] = headers::components();
    let all: Vec<&str> = {
        let mut all: Vec<&str> = codes::all().map(|code| code.code).collect();
        all.sort_unstable();
        all
    };
    document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] = json!(all);
    for route in ROUTES {
        let operation = &mut document["paths"][route.path][&route.verb.as_str().to_lowercase()];
        if let Value::Object(operation) = operation {
            complete(operation, route);
        }
    }
    Ok(document)
}

/// Adds who may call it and how it fails.
fn complete(operation: &mut Map<String, Value>, route: &Route) {
    let (security, note) = match route.policy {
        Policy::Public => (json!([]), "Anybody may call this."),
        Policy::Optional => (json!([{}, {"bearer": []}, {"cookie": []}]), "Anybody may call this."),
        Policy::User => (json!([{"bearer": []}, {"cookie": []}]), "Any user may call this."),
        Policy::Person => (
            json!([{"bearer": []}, {"cookie": []}]),
            "Any user who has signed in may call this; API tokens may not.",
        ),
        Policy::Owner => (
            json!([{"bearer": []}, {"cookie": []}]),
            "For the owner and administrators; to anybody else it does not exist (404).",
        ),
        Policy::Admin => (json!([{"bearer": []}, {"cookie": []}]), "For administrators only."),
    };
    operation.insert("security".into(), security);
    operation.insert("x-policy".into(), json!(format!("{:?}", route.policy).to_lowercase()));
    let old = operation.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = if old.is_empty() { note.to_owned() } else { format!("{old}\n\n{note}") };
    operation.insert("description".into(), json!(description));

    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Value::Array(parameters) = parameters {
        parameters.extend(headers::parameters(route));
    }

    if let Some(body) = operation.get_mut("requestBody") {
        let text = body["description"].as_str().unwrap_or_default();
        body["required"] = json!(!text.starts_with(OPTIONAL_BODY));
    }

    if dry::is_possible(route) {
        complete_dry(operation);
    }

    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for name in codes_of(route) {
        if let Some(entry) = codes::find(name) {
            by_status.entry(entry.status).or_default().push(name);
        }
    }
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for (status, mut names) in by_status {
            names.sort_unstable();
            names.dedup();
            let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
            responses.entry(status.to_string()).or_insert_with(|| {
                json!({
                    "description": names.join(", "),
                    "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } },
                })
            });
        }
        headers::complete(responses, route);
    }
}

/// Adds that the call can be tried without effect, and what it answers then.
fn complete_dry(operation: &mut Map<String, Value>) {
    if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
        parameters.push(json!({
            "name": "dry_run", "in": "query", "required": false, "schema": { "type": "boolean" },
            "description": "Only say what would be done: the same decision, and nothing stored.",
        }));
        parameters.push(json!({
            "name": "plan", "in": "query", "required": false, "schema": { "type": "string" },
            "description": "The `plan_hash` of a dry run of the same request: exactly that, or 412, also when it is so already. As without it, what is gone is 404. The container gets no other number: when somebody else takes it on Proxmox after this call was accepted, the operation fails and is undone.",
        }));
    }
    let dry = json!({ "$ref": "#/components/schemas/DryRun" });
    let answer = &mut operation["responses"]["200"];
    let old = answer["content"]["application/json"]["schema"].take();
    let (schema, description) = if old.is_null() {
        (dry, "With `dry_run=true`: what would be done".to_owned())
    } else {
        let before = answer["description"].as_str().unwrap_or_default();
        let both = json!({ "oneOf": [old, dry] });
        (both, format!("{before}; with `dry_run=true`: what would be done"))
    };
    *answer = json!({
        "description": description, "content": { "application/json": { "schema": schema } },
    });
}

/// Every code that a call may answer with.
pub fn codes_of(route: &Route) -> Vec<&'static str> {
    let mut codes = SHARED.to_vec();
    if route.policy != Policy::Public {
        codes.push("store.unavailable");
        if route.needs_views() {
            codes.push("views.filling");
        }
    }
    if !matches!(route.policy, Policy::Public | Policy::Optional) {
        codes.push("identity.required");
        codes.push(match route.policy {
            Policy::Person => "api_token.not_accepted",
            _ => "api_token.scope_missing",
        });
    }
    if route.policy == Policy::Admin {
        codes.push("admin.required");
    }
    if route.path.contains('{') {
        codes.push("not_found");
    }
    if !route.verb.is_safe() {
        codes.extend(["csrf.failed", "origin.refused", "value.invalid", "store.busy"]);
        codes.extend(["idempotency_key.reused", "idempotency_key.answer_gone"]);
        codes.push("idempotency_key.refused_meanwhile");
        if route.policy == Policy::Admin {
            codes.push("idempotency_key.in_progress");
        }
        codes.extend(["store.closed", "store.contended"]);
        if !matches!(route.policy, Policy::Public | Policy::Optional) {
            codes.push("keys.missing");
        }
        // Asked of a call that cannot be tried.
        codes.push("dry_run.unsupported");
        // Sent to a call that changes nothing with an `ETag`.
        codes.push(CHANGED);
    }
    if dry::is_possible(route) {
        codes.push("plan.changed");
    }
    codes.extend(route.codes);
    codes
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
