//! Who is given a kept answer again: whoever its call would be open to now. Rights are those of now, so
//! what a call is about is proved again as its handler proves it.

use proximity_commands::Actor;
use proximity_commands::answers::Answer;
use proximity_projections::Operation;

use super::call::Call;
use super::events;
use super::handlers::{apps, backup_schedules, backups, operations};
use super::problem::Problem;
use super::reply::StatusCode;
use super::route::{Policy, Route};

/// What a call is about, besides what its route's policy has judged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Nothing: it is the caller's own account or what the call itself has made for the caller, or an
    /// administrator's to do.
    Nothing,
    /// The application of the path.
    Application,
    /// The application that the body names, if it names one.
    NamedApplication,
    /// The backup of the path, and its application.
    Backup,
    /// The schedule of the path.
    Schedule,
    /// The operation of the path.
    Operation,
}

/// `None` of a route that has no line here, which a test forbids: its answers are given to nobody again.
fn about(route: &Route) -> Option<About> {
    match route.policy {
        // An address and a body in common, a login, a role: all there is to ask, and asked of each call.
        Policy::Public | Policy::Optional | Policy::Person | Policy::Admin => {
            return Some(About::Nothing);
        }
        Policy::User | Policy::Owner => {}
    }
    let known = [
        ("Post /api/apps", About::Nothing),
        ("Delete /api/apps/{id}", About::Application),
        ("Post /api/apps/{id}/action", About::Application),
        ("Post /api/apps/{id}/clone", About::Application),
        ("Post /api/apps/{id}/backups", About::Application),
        ("Delete /api/apps/{id}/backups/{backup_id}", About::Backup),
        ("Post /api/apps/{id}/backups/{backup_id}/restore", About::Backup),
        ("Post /api/backup-schedules", About::NamedApplication),
        ("Put /api/backup-schedules/{id}", About::Schedule),
        ("Delete /api/backup-schedules/{id}", About::Schedule),
        ("Post /api/operations/{id}/cancel", About::Operation),
    ];
    known.into_iter().find(|(name, _)| *name == route.name).map(|(_, about)| about)
}

/// The kept answer as it may be given to this caller now, or what the call would be refused with. What is
/// gone is no secret to whom it belonged.
pub async fn given(route: &Route, call: &Call, answer: Answer) -> Result<Answer, Problem> {
    let about = about(route).ok_or_else(|| {
        tracing::error!(route = route.name, "nothing is known of who may have its answers again");
        Problem::internal()
    })?;
    match prove(about, call).await {
        Ok(Sees::All) => Ok(answer),
        Ok(Sees::Outside) => from_outside(answer),
        Err(refused) if is_absent(&refused) => {
            let anyone = Call { actor: Actor::system("idempotency"), ..call.clone() };
            match prove(about, &anyone).await {
                Ok(_) => Err(refused),
                Err(absent) if !is_absent(&absent) => Err(absent),
                Err(_) if was_own(about, call).await? => Ok(answer),
                Err(_) => Err(refused),
            }
        }
        Err(refused) => Err(refused),
    }
}

/// How much of what a call is about its caller may see.
enum Sees {
    All,
    /// Of an operation, what whose application it copies may.
    Outside,
}

/// The proofs are the handlers' own.
async fn prove(about: About, call: &Call) -> Result<Sees, Problem> {
    match about {
        About::Nothing => {}
        About::Application => drop(apps::owned(call).await?),
        About::NamedApplication => backup_schedules::named(call).await?,
        About::Backup => drop(backups::backup(call).await?),
        About::Schedule => drop(backup_schedules::schedule(call).await?),
        About::Operation if !operations::concerned(call).await?.sees_all() => {
            return Ok(Sees::Outside);
        }
        About::Operation => {}
    }
    Ok(Sees::All)
}

/// Whether it says that the caller knows of no such thing.
fn is_absent(problem: &Problem) -> bool {
    problem.status == StatusCode::NOT_FOUND || problem.code == "backup_schedule.application_unknown"
}

/// Whether what is there no more was the caller's.
async fn was_own(about: About, call: &Call) -> Result<bool, Problem> {
    let own = async |kind, id| events::was_own(&call.app.store, &call.actor, kind, id).await;
    match about {
        About::Nothing => Ok(true),
        About::Application => own("application", call.param("id")?).await,
        About::NamedApplication => match backup_schedules::names(call)? {
            Some(id) => own("application", id).await,
            None => Ok(true),
        },
        About::Backup => Ok(own("application", call.param("id")?).await?
            && own("backup", call.param("backup_id")?).await?),
        About::Schedule => own("backup_schedule", call.param("id")?).await,
        About::Operation => own("operation", call.param("id")?).await,
    }
}

/// An operation that was told in full is told now as to anybody else.
fn from_outside(mut answer: Answer) -> Result<Answer, Problem> {
    let told = answer.body.as_deref().map(serde_json::from_slice::<Operation>).transpose();
    let written =
        told.and_then(|told| told.map(|told| serde_json::to_vec(&told.from_outside())).transpose());
    answer.body = written.map_err(|error| {
        tracing::error!(%error, "a kept operation cannot be read");
        Problem::internal()
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    #[test]
    fn of_each_call_that_changes_something_it_is_known_who_may_have_its_answer_again() {
        let unknown: Vec<&str> = ROUTES
            .iter()
            .filter(|route| !route.verb.is_safe() && about(route).is_none())
            .map(|route| route.name)
            .collect();
        assert!(unknown.is_empty(), "{unknown:?} have no line in server/src/http/again.rs");
    }

    #[test]
    fn a_call_that_names_something_of_an_owners_has_it_proved_again() {
        for route in ROUTES.iter().filter(|route| !route.verb.is_safe()) {
            if route.policy == Policy::Owner {
                assert_ne!(about(route), Some(About::Nothing), "{}", route.name);
            }
        }
    }
}
