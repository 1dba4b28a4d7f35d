//! Who calls: the access token of the header or the cookie, looked up on every request.

use actix_web::web;
use proximity_commands::tokens::ApiTokens;
use proximity_commands::{Actor, Error};

use super::dispatch::{Presentation, nobody};
use super::origin::Via;
use super::problem::Problem;
use super::route::{Policy, Route};
use crate::app::App;

/// The actor of this request, or the refusal that the route's policy demands.
pub async fn establish(
    route: &'static Route,
    app: &web::Data<App>,
    via: &Via,
    request_id: &str,
    presented: &mut Presentation,
) -> Result<Actor, Problem> {
    let policy = route.policy;
    if policy == Policy::Public {
        return Ok(nobody(via, request_id));
    }
    let refused = || Problem::from(Error::Unauthenticated);
    let (token, by_cookie) = match (&presented.bearer, &presented.cookie) {
        (Some(token), _) => (Some(token.clone()), false),
        // A header of another scheme was meant to identify: the cookie must not answer for it.
        (None, _) if presented.malformed_authorization => (None, false),
        // An API token is no cookie's: it would go around the CSRF rules.
        (None, Some(token)) if ApiTokens::looks_like_one(token) => (None, false),
        (None, Some(token)) => (Some(token.clone()), true),
        (None, None) => (None, false),
    };
    let actor = match token {
        None => None,
        Some(token) => {
            app.authenticate(token.clone(), via.client, request_id).await?.inspect(|_| {
                presented.by_cookie = by_cookie;
                presented.rest.access = Some(token);
            })
        }
    };
    if let Some(actor) = &actor {
        scope(policy, route.verb.is_safe(), actor).inspect_err(|problem| {
            let error = Error::Rejected { code: problem.code, detail: String::new() };
            app.refusals.note(actor, route.name, &error);
        })?;
    }
    match (policy, actor) {
        (Policy::Optional, None) => Ok(nobody(via, request_id)),
        (_, None) => Err(refused()),
        (Policy::Admin, Some(actor)) => {
            app.require_admin(&actor).inspect_err(|problem| {
                let error = Error::Rejected { code: problem.code, detail: String::new() };
                app.refusals.note(&actor, route.name, &error);
            })?;
            Ok(actor)
        }
        (_, Some(actor)) => Ok(actor),
    }
}

/// What an API token may be used for here; a login may do all that its user may.
fn scope(policy: Policy, is_safe: bool, actor: &Actor) -> Result<(), Problem> {
    let Some(may) = actor.scopes() else { return Ok(()) };
    let missing = match policy {
        Policy::Public | Policy::Optional => return Ok(()),
        Policy::Person => {
            return Err(Problem::new(
                "api_token.not_accepted",
                "this call needs someone who has signed in; API tokens may not make it",
            ));
        }
        Policy::Admin if !may.admin => "admin",
        _ if is_safe && !may.read => "read",
        _ if !is_safe && !may.write => "write",
        _ => return Ok(()),
    };
    let detail = format!("this API token lacks the scope {missing}");
    Err(Problem::new("api_token.scope_missing", detail))
}
