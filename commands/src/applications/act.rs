//! Start, stop, restart, delete: each is an operation, the only one on its application while it runs.

use std::str::FromStr;
use std::time::Duration;

use proximity_domain::application::{
    Application, Command as App, Error as Refusal, Live, Loss, Origin, Sighting,
};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{DeletePlan, GuestRef, Kind, Plan, PowerPlan};
use proximity_domain::{ApplicationId, OperationId, UserId, ValueError};
use uuid::Uuid;

use super::{Accepted, Applications};
use crate::dispatch::{Refused, Tried, Unit};
use crate::error::Error;
use crate::marker::Belongs;
use crate::once::{self, Done, OnceKey};
use crate::policy::{Owned, give};
use crate::ports::HypervisorError;
use crate::retry::retrying;
use crate::saga;

/// How long a look at Proxmox may take before it is answered from the log.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be done with an application that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Restart,
    Delete,
}

impl FromStr for Action {
    type Err = ValueError;

    /// In any case, as the old client sends it.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_lowercase().as_str() {
            "start" => Ok(Self::Start),
            "stop" => Ok(Self::Stop),
            "restart" => Ok(Self::Restart),
            "delete" => Ok(Self::Delete),
            _ => Err(ValueError {
                code: "action.unknown",
                message: "an action is one of start, stop, restart, delete".to_owned(),
            }),
        }
    }
}

impl Action {
    fn kind(self) -> Kind {
        match self {
            Self::Start => Kind::Start,
            Self::Stop => Kind::Stop,
            Self::Restart => Kind::Restart,
            Self::Delete => Kind::Delete,
        }
    }
}

/// What a look at Proxmox says of a container of which the log says that all is so already.
enum Seen {
    AsRecorded,
    Otherwise(Sighting),
    /// It is nowhere in its cluster, or a guest that is not the application's has its number.
    Missing,
    /// Proxmox did not answer, or the container is being moved or made.
    Untold,
}

impl Applications {
    /// Accepts an action. `force`: stop without waiting for a graceful end.
    pub async fn act(
        &self,
        application: &Owned<ApplicationId>,
        action: Action,
        force: bool,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Error> {
        retrying!(async {
            match once::kept(&self.store, application.actor(), key).await? {
                Some(first) => Ok(first),
                None => self.attempt_action(application, action, force, key).await,
            }
        })
    }

    async fn attempt_action(
        &self,
        owned: &Owned<ApplicationId>,
        action: Action,
        force: bool,
        key: Option<&OnceKey>,
    ) -> Result<Done<Accepted>, Tried> {
        let (actor, application) = (owned.actor(), owned.id());
        let operation = OperationId(Uuid::now_v7());
        let meta = actor.metadata("application.act").correlated(operation);
        let mut unit = Unit::new(&self.store, meta);
        let state = unit.load::<Application>(application.as_str()).await?;
        let (owner, plan) = plan(&state, action, force).ok_or(Error::NotFound)?;
        unit.owned_by(owner);
        let begin = App::BeginOperation { operation, kind: action.kind() };
        let mut began =
            judged(unit.apply::<Application>(application.as_str(), begin.clone()).await)?;
        // The log may be a minute behind what was done by hand.
        if began == 0
            && let Some(live) = state.live()
        {
            let commands = match self.seen_now(application, live).await {
                Seen::AsRecorded => vec![],
                Seen::Otherwise(seen) => vec![App::Observe(seen), begin],
                Seen::Untold if live.lost.is_none() => {
                    // It looks again, and tells what it finds.
                    vec![App::BeginUnseen { operation, kind: action.kind() }]
                }
                Seen::Missing | Seen::Untold => return Err(Error::from(Refusal::Lost).into()),
            };
            for command in commands {
                began = judged(unit.apply::<Application>(application.as_str(), command).await)?;
            }
        }
        if began == 0 {
            crate::agreed::not_so_already(actor)?;
            // It is so already: no event, and nothing to remember under the key.
            let position = *self.store.watch_head().borrow();
            let value = Accepted { application: application.clone(), operation: None };
            return Ok(Done { value, position, replayed: false });
        }
        let planned = Op::Plan {
            application: application.clone(),
            owner,
            steps: saga::step_names(&plan),
            plan: Box::new(plan),
            deadline: self.deadline(self.limits.other),
        };
        unit.apply::<Operation>(&operation.to_string(), planned)
            .await
            .map_err(|refused| refused.or_else(Error::from))?;
        unit.write(give(&operation, owner));
        let accepted = Accepted { application: application.clone(), operation: Some(operation) };
        unit.idempotent(once::keep(actor, key, &accepted)?);
        let committed = unit.commit().await?;
        Ok(once::done(committed, accepted)?)
    }

    /// What its container does, as far as Proxmox can be asked now.
    async fn seen_now(&self, application: &ApplicationId, live: &Live) -> Seen {
        let looked = tokio::time::timeout(PATIENCE, self.look_at(application, live)).await;
        match looked {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::info!(%application, %error, "a container was not looked at");
                Seen::Untold
            }
            Err(_) => Seen::Untold,
        }
    }

    /// Looks for it on its node, and on all others when it is not there.
    async fn look_at(
        &self,
        application: &ApplicationId,
        live: &Live,
    ) -> Result<Seen, HypervisorError> {
        let GuestRef { host, cluster, node, vmid } = &live.requested.guest;
        let hypervisor = self.hypervisors.of(*host).await?;
        let (node, config) = match hypervisor.config(node, *vmid).await? {
            Some(config) => (node.clone(), config),
            None if hypervisor.vmid_is_free(*vmid).await? => return Ok(Seen::Missing),
            None => {
                let guests = hypervisor.guests().await?;
                let Some(there) = guests.into_iter().find(|guest| guest.vmid == *vmid) else {
                    return Ok(Seen::Untold);
                };
                if !there.is_container {
                    return Ok(Seen::Missing);
                }
                match hypervisor.config(&there.node, *vmid).await? {
                    Some(config) => (there.node, config),
                    None => return Ok(Seen::Untold),
                }
            }
        };
        // A creation's lock and nothing else says nobody's name.
        if config.is_being_created() {
            return Ok(Seen::Untold);
        }
        let belongs = self.markers.judge(config.description.as_deref(), cluster, *vmid);
        if !matches!(belongs, Belongs::Ours(marker) if marker.application == *application) {
            return Ok(Seen::Missing);
        }
        let Some(status) = hypervisor.status(&node, *vmid).await? else { return Ok(Seen::Untold) };
        let running = status.running;
        Ok(if running == live.running && live.lost.is_none() {
            Seen::AsRecorded
        } else {
            Seen::Otherwise(Sighting::Present { node, running, address: None })
        })
    }
}

fn judged(applied: Result<usize, Refused<Refusal>>) -> Result<usize, Error> {
    applied.map_err(|refused| refused.or_else(Error::from))
}

/// Whose it is, and what has to be done; `None` when there is no such application (any more).
fn plan(state: &Application, action: Action, force: bool) -> Option<(UserId, Plan)> {
    match state {
        Application::Absent | Application::Removed => None,
        Application::Failed(failed) => {
            let nothing = DeletePlan {
                guest: None,
                holdings: None,
                was_running: false,
                adopted_by: None,
                replaced: false,
                detached: false,
            };
            // Anything but a deletion is refused by the application itself.
            Some((failed.owner, Plan::Delete(nothing)))
        }
        Application::Live(live) => {
            let plan = match action {
                Action::Start => Plan::Start(power(live, force)),
                Action::Stop => Plan::Stop(power(live, force)),
                Action::Restart => Plan::Restart(power(live, force)),
                Action::Delete => Plan::Delete(DeletePlan {
                    guest: Some(live.requested.guest.clone()),
                    holdings: Some(live.requested.holdings.clone()),
                    was_running: live.running,
                    adopted_by: (live.requested.origin == Origin::Adopted)
                        .then_some(live.requested.operation),
                    replaced: live.lost == Some(Loss::Replaced),
                    detached: false,
                }),
            };
            Some((live.requested.owner, plan))
        }
    }
}

fn power(live: &Live, force: bool) -> PowerPlan {
    PowerPlan { guest: live.requested.guest.clone(), force, health: live.requested.health.clone() }
}
