//! Who calls: the access token of the header or the cookie, looked up on every request.

use actix_web::web;
use proximity_commands::tokens::ApiTokens;
use proximity_commands::{Actor, Error};

use super::dispatch::Presentation;
use super::origin::Via;
use super::problem::Problem;
use super::route::{Policy, Route};
use crate::app::App;

/// Finds out whose request this is, up to now nobody's, or refuses what the route's policy demands.
/// `who` is known from the moment at which a token has told it, also when it is refused then.
pub async fn establish(
    route: &'static Route,
    app: &web::Data<App>,
    via: &Via,
    presented: &mut Presentation,
    who: &mut Actor,
) -> Result<(), Problem> {
    let policy = route.policy;
    if policy == Policy::Public {
        return Ok(());
    }
    let (token, by_cookie) = match (&presented.bearer, &presented.cookie) {
        (Some(token), _) => (Some(token.clone()), false),
        // A header of another scheme was meant to identify: the cookie must not answer for it.
        (None, _) if presented.malformed_authorization => (None, false),
        // An API token is no cookie's: it would go around the CSRF rules.
        (None, Some(token)) if ApiTokens::looks_like_one(token) => (None, false),
        (None, Some(token)) => (Some(token.clone()), true),
        (None, None) => (None, false),
    };
    let request_id = who.request.clone().unwrap_or_default();
    let actor = match token {
        None => None,
        Some(token) => {
            app.authenticate(token.clone(), via.client, &request_id).await?.inspect(|_| {
                presented.by_cookie = by_cookie;
                presented.rest.access = Some(token);
            })
        }
    };
    let Some((actor, _)) = actor else {
        return if policy == Policy::Optional {
            Ok(())
        } else {
            Err(Error::Unauthenticated.into())
        };
    };
    *who = actor;
    scope(policy, route.verb.is_safe(), who)?;
    if policy == Policy::Admin {
        app.require_admin(who)?;
    }
    Ok(())
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
