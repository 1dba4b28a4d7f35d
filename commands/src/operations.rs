//! What people ask of operations: take one back, go on with a stuck one, or give it up.

use std::time::Duration;

use proximity_domain::application::{Application, Command as App};
use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::operation::{Command as Op, Operation, Progress};
use proximity_domain::plan::{GuestRef, Holdings, Plan, RestorePlan};
use proximity_domain::{LeaseKey, OperationId, UserId};
use proximity_eventstore::Store;
use std::sync::Arc;

use crate::actor::Actor;
use crate::clock::{Clock, Micros};
use crate::dispatch::{Refused, Retries, Tried, Unit};
use crate::error::Error;
use crate::host_usage;
use crate::once::Done;
use crate::policy::{Admin, Concerned};
use crate::saga;
use crate::secrets::Secrets;

/// Stands in events for the operator's shell, which is no user.
const SHELL: UserId = UserId(0);

/// Commands on operations.
pub struct Operations {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// How long a VMID is kept whose guest may still be there.
    pub quarantine: Duration,
}

/// What a caller wants of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Cancel { reason: String },
    Resume { note: String },
    Abandon { note: String },
}

impl Operations {
    /// Asks an operation to turn back; refused once it can only go forward.
    pub async fn cancel(&self, operation: &Concerned, reason: String) -> Result<Done<()>, Error> {
        let (actor, id) = (operation.actor(), *operation.id());
        self.run(actor, id, "operation.cancel", Wish::Cancel { reason }).await
    }

    /// Lets a stuck operation go on in the direction in which it got stuck.
    pub async fn resume(
        &self,
        admin: &Admin,
        operation: OperationId,
        note: String,
    ) -> Result<Done<()>, Error> {
        self.run(admin.actor(), operation, "operation.resume", Wish::Resume { note }).await
    }

    /// Gives a stuck operation up. What it held is given back, but for the VMID, which stays in
    /// quarantine until nothing is seen under it.
    pub async fn abandon(
        &self,
        admin: &Admin,
        operation: OperationId,
        note: String,
    ) -> Result<Done<()>, Error> {
        self.run(admin.actor(), operation, "operation.abandon", Wish::Abandon { note }).await
    }

    async fn run(
        &self,
        actor: &Actor,
        operation: OperationId,
        command: &'static str,
        wish: Wish,
    ) -> Result<Done<()>, Error> {
        let mut retries = Retries::default();
        loop {
            match self.attempt(actor, operation, command, wish.clone()).await {
                Ok(done) => return Ok(done),
                Err(tried) => retries.again(tried).await?,
            }
        }
    }

    async fn attempt(
        &self,
        actor: &Actor,
        operation: OperationId,
        command: &'static str,
        wish: Wish,
    ) -> Result<Done<()>, Tried> {
        let id = operation.to_string();
        let by = actor.user().unwrap_or(SHELL);
        let mut unit = Unit::new(&self.store, actor.metadata(command).correlated(operation));
        let state = unit.load::<Operation>(&id).await?;
        let judged = match wish {
            Wish::Cancel { reason } => {
                if state.progress().is_some_and(saga::is_past_pivot) {
                    return Err(Error::from(proximity_domain::operation::Error::PastPivot).into());
                }
                unit.apply::<Operation>(&id, Op::Cancel { by, reason }).await
            }
            Wish::Resume { note } => unit.apply::<Operation>(&id, Op::Resume { by, note }).await,
            Wish::Abandon { note } => {
                let judged =
                    unit.apply::<Operation>(&id, Op::Abandon { by, note: note.clone() }).await;
                if let (Ok(_), Some(progress)) = (&judged, state.progress()) {
                    self.let_go(&mut unit, operation, progress, note).await?;
                }
                judged
            }
        };
        judged.map_err(|refused| refused.or_else(Error::from))?;
        if let Some(progress) = state.progress() {
            unit.owned_by(progress.owner);
        }
        if unit.is_empty() {
            let position = *self.store.watch_head().borrow();
            return Ok(Done { value: (), position, replayed: false });
        }
        let committed = unit.commit().await?;
        Ok(Done { value: (), position: committed.position, replayed: false })
    }

    /// The application's side of an operation that is given up.
    async fn let_go(
        &self,
        unit: &mut Unit<'_>,
        operation: OperationId,
        progress: &Progress,
        note: String,
    ) -> Result<(), Error> {
        let application = progress.application.as_str();
        let problem = format!("given up by an operator: {note}");
        host_usage::end(unit, operation, &progress.plan);
        crate::applications::give_up_backup(unit, operation, &progress.plan, &problem).await?;
        if !progress.plan.is_detached() {
            let running = saga::has_stopped_its_own(progress).then_some(false);
            let abandon = App::Abandon { operation, problem, running };
            unit.apply::<Application>(application, abandon)
                .await
                .map_err(|refused| refused.or_else(Error::from))?;
        }
        match &progress.plan {
            Plan::Deploy(plan) => {
                self.give_back(unit, progress, &plan.guest, Some(&plan.holdings)).await
            }
            Plan::Delete(plan) => match &plan.guest {
                Some(guest) => self.give_back(unit, progress, guest, plan.holdings.as_ref()).await,
                None => Ok(()),
            },
            Plan::Clone(plan) => {
                let problem = "the copying was given up by an operator".to_owned();
                let running = saga::has_stopped_the_source(progress).then_some(false);
                let source = App::Abandon { operation, problem, running };
                unit.apply::<Application>(plan.source.as_str(), source)
                    .await
                    .map_err(|refused| refused.or_else(Error::from))?;
                self.give_back(unit, progress, &plan.guest, Some(&plan.holdings)).await
            }
            Plan::Adopt(plan) => {
                self.give_back(unit, progress, &plan.guest, Some(&plan.holdings)).await
            }
            // The application goes on holding what it holds.
            Plan::Start(_) | Plan::Stop(_) | Plan::Restart(_) => Ok(()),
            Plan::Backup(_) | Plan::BackupDelete(_) => Ok(()),
            Plan::Restore(plan) => self.give_back_one(unit, progress, plan).await,
        }
    }

    /// Of the two numbers of a restore, the one that is not the application's now.
    async fn give_back_one(
        &self,
        unit: &mut Unit<'_>,
        progress: &Progress,
        plan: &RestorePlan,
    ) -> Result<(), Error> {
        let state = unit.load::<Application>(progress.application.as_str()).await?;
        let now = state.live().map(|live| live.requested.guest.vmid);
        for guest in [&plan.guest, &plan.original] {
            if now != Some(guest.vmid) {
                let quarantine = self.quarantined(progress);
                release(unit, guest.vmid_lease(), quarantine).await?;
            }
        }
        Ok(())
    }

    async fn give_back(
        &self,
        unit: &mut Unit<'_>,
        progress: &Progress,
        guest: &GuestRef,
        holdings: Option<&Holdings>,
    ) -> Result<(), Error> {
        unit.write(host_usage::let_go(&progress.application));
        unit.write(Secrets::forget_all(&progress.application));
        release(unit, guest.vmid_lease(), self.quarantined(progress)).await?;
        let holder = Holder::Application(progress.application.clone());
        for key in holdings.map(|held| held.leases(&guest.cluster)).unwrap_or_default() {
            release(unit, key, lease::Command::Release { holder: holder.clone() }).await?;
        }
        Ok(())
    }

    fn quarantined(&self, progress: &Progress) -> lease::Command {
        let keep = Micros::try_from(self.quarantine.as_micros()).unwrap_or(Micros::MAX);
        lease::Command::Quarantine {
            holder: Holder::Application(progress.application.clone()),
            until: self.clock.now().saturating_add(keep),
            reason: format!("the operation on {} was given up", progress.application),
        }
    }
}

/// Gives a lease back, unless it is another one's by now.
async fn release(unit: &mut Unit<'_>, key: LeaseKey, command: lease::Command) -> Result<(), Error> {
    match unit.apply::<Lease>(&key.to_string(), command).await {
        Ok(_) | Err(Refused::Judged(lease::Error::NotHolder)) => Ok(()),
        Err(refused) => Err(refused.or_else(|why| crate::leases::refused(&key, &why))),
    }
}
