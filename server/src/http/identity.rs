//! Who calls: the access token of the header or the cookie, looked up on every request.

use actix_web::web;
use proximity_commands::{Actor, Error};

use super::dispatch::{Presentation, nobody};
use super::origin::Via;
use super::problem::Problem;
use super::route::Policy;
use crate::app::App;

/// The actor of this request, or the refusal that the route's policy demands.
pub async fn establish(
    policy: Policy,
    route: &'static str,
    app: &web::Data<App>,
    via: &Via,
    request_id: &str,
    presented: &mut Presentation,
) -> Result<Actor, Problem> {
    if policy == Policy::Public {
        return Ok(nobody(via, request_id));
    }
    let refused = || Problem::from(Error::Unauthenticated);
    let (token, by_cookie) = match (&presented.bearer, &presented.cookie) {
        (Some(token), _) => (Some(token.clone()), false),
        // A header of another scheme was meant to identify: the cookie must not answer for it.
        (None, _) if presented.malformed_authorization => (None, false),
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
    match (policy, actor) {
        (Policy::Optional, None) => Ok(nobody(via, request_id)),
        (_, None) => Err(refused()),
        (Policy::Admin, Some(actor)) => {
            app.require_admin(&actor).inspect_err(|problem| {
                let error = Error::Rejected { code: problem.code, detail: String::new() };
                app.refusals.note(&actor, route, &error);
            })?;
            Ok(actor)
        }
        (_, Some(actor)) => Ok(actor),
    }
}
