//! What is written down about a call beside its own events: that it was refused, that an administrator
//! made it, that it changed nothing, or that it was answered again.

use proximity_commands::once::OnceKey;
use proximity_commands::policy::Admin;
use proximity_commands::{Actor, admin_actions};

use super::call::Call;
use super::problem::Problem;
use super::reply::Reply;
use super::route::{Policy, Route};
use crate::app::App;

/// What administrators did is audited, also when it left nothing in the log by itself. It takes the
/// call's key along, so that it is done once.
pub async fn note_action(route: &Route, call: &Call, reply: &Reply) {
    if route.policy != Policy::Admin || route.verb.is_safe() || reply.position.is_some() {
        return;
    }
    let noted = match Admin::prove(&call.actor) {
        Ok(admin) => admin_actions::note(&call.app.store, &admin, route.name, &call.path).await,
        Err(error) => Err(error),
    };
    if let Err(error) = noted {
        // It has happened; what is left is to say so here.
        tracing::error!(route = route.name, ?error, "an administrator's action is not in the log");
    }
}

/// A command that was accepted is in the log, also when what it asks for was so already. When another
/// request was faster under the key, this one turns out to have been its repeat.
pub async fn note_unchanged(route: &Route, call: &Call, key: Option<&OnceKey>) {
    if route.verb.is_safe() || route.only_looks() || call.actor.told.is_set() {
        return;
    }
    let noted = call.app.refusals.note_unchanged(&call.actor, route.name, &call.path).await;
    match (noted, key) {
        (Ok(false), Some(key)) => note_repeated(route, call, key).await,
        (Ok(_), _) => {}
        // It is counted, so nothing but who comes first under the key is lost.
        (Err(error), _) => tracing::warn!(
            route = route.name,
            ?error,
            "a call that changed nothing could not take its idempotency key"
        ),
    }
}

/// Of a call that was answered again it is written down which request was the first.
pub async fn note_repeated(route: &Route, call: &Call, key: &OnceKey) {
    let first = call.app.answers.first(&call.actor, key).await.unwrap_or_else(|error| {
        tracing::warn!(route = route.name, ?error, "the first request of a key is not known");
        None
    });
    call.app.refusals.note_repeated(&call.actor, route.name, &call.path, first);
}

/// Refusals are audited: `docs/adr/0028-what-is-counted-as-a-refusal.md` says which.
pub fn note_refusal(app: &App, route: &Route, actor: &Actor, path: &str, problem: &Problem) {
    // Accounts count failed logins themselves: they know of which account.
    let by_accounts = route.path == "/api/auth/login" && problem.code.starts_with("login.");
    if is_refusal(route, problem) && !by_accounts {
        app.refusals.note(actor, route.name, path, problem.code);
    }
}

fn is_refusal(route: &Route, problem: &Problem) -> bool {
    match problem.status.as_u16() {
        401 | 403 | 409 | 412 | 422 | 429 => true,
        // What everybody may read is hidden from nobody.
        404 => route.policy != Policy::Public,
        503 => problem.code == "store.contended",
        // What cannot be read (400, 405, 406, 413, 415) asks for nothing, and a failure refuses nothing.
        _ => false,
    }
}
