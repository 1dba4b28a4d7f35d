//! Schedules of backups: made, changed and deleted by their owners, fired by whichever server notices.

mod calendar;
mod fire;
mod input;
mod prune;
mod run;
mod scheduler;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use proximity_domain::application::Application;
use proximity_domain::backup_schedule::{
    BackupSchedule, Command, Created, Deleted, Error as Refusal, Live, Settings,
};
use proximity_domain::{ApplicationId, ScheduleId, UserId, ValueError};
use proximity_eventstore::tables;

pub use calendar::Calendar;
pub use input::ScheduleInput;
pub use scheduler::{Scheduler, SchedulerHandle};

use crate::accounts::Fields;
use crate::actor::Actor;
use crate::applications::Applications;
use crate::clock::{Clock, Micros};
use crate::dispatch::{Refused, Tried, Unit};
use crate::error::Error;
use crate::numbers;
use crate::once::Done;
use crate::policy::{Ownable as _, Owned, give, take_away};
use crate::retry::retrying;
use crate::rows::{text, unreadable};

/// The counter of schedules' numbers.
const NUMBERS: &str = "backup_schedule.last";
/// Schedules that one user may have.
const MOST: usize = 100;

/// Everything that schedules need.
pub struct Schedules {
    pub applications: Arc<Applications>,
    pub clock: Arc<dyn Clock>,
    pub patience: Patience,
}

/// How long things are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between two looks at what is due and at the runs that are open.
    pub look: Duration,
    /// Between two tries at an application that is occupied.
    pub pause: Duration,
    /// For how long an occupied application is tried, by the clock of commands.
    pub occupied: Duration,
    /// Applications of one run that are worked on at once.
    pub at_once: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(500),
            pause: Duration::from_secs(5),
            occupied: Duration::from_secs(20 * 60),
            at_once: 3,
        }
    }
}

impl Schedules {
    /// Makes a schedule: for one application, whose owner then is the schedule's, or for all that the
    /// caller has when it fires. Its number is new.
    pub async fn create(
        &self,
        actor: &Actor,
        application: Option<&str>,
        input: &ScheduleInput,
    ) -> Result<Done<ScheduleId>, Error> {
        let mut fields = Fields::default();
        let settings = fields.also(input.over(None))?;
        let (owner, application) = match application {
            None => (actor.user(), None),
            Some(id) => {
                let owned = self.application(actor, id).await;
                let owned = fields.also(owned)?;
                (owned.as_ref().map(Owned::owner), owned.map(|owned| owned.id().clone()))
            }
        };
        if !fields.is_empty() {
            return Err(fields.into_error());
        }
        // A part of the program has no applications of its own.
        let (Some(settings), Some(owner)) = (settings, owner) else {
            return Err(Error::Unauthenticated);
        };
        let next = self.next(&settings)?;
        let created = Created { owner, application, settings, next };
        retrying!(self.try_create(actor, &created))
    }

    async fn try_create(
        &self,
        actor: &Actor,
        created: &Created,
    ) -> Result<Done<ScheduleId>, Tried> {
        let store = &self.applications.store;
        let mut unit = Unit::new(store, actor.metadata("backup_schedule.create"));
        unit.owned_by(created.owner);
        if let Some(application) = &created.application {
            // Of an application that is removed meanwhile, no schedule is made.
            let state = unit.load::<Application>(application.as_str()).await?;
            state.live().ok_or_else(unknown_application)?;
        }
        // Before the count: whoever makes a schedule after it has taken this number, too.
        let id = ScheduleId(numbers::next(store, &mut unit, NUMBERS).await?);
        let filter = vec![("kind", text(ScheduleId::KIND)), ("owner", text(created.owner))];
        let has = store.rows(&tables::OWNERSHIP, filter, MOST).await.map_err(unreadable)?.len();
        if has >= MOST {
            let detail = format!("a user has at most {MOST} schedules; delete one first");
            return Err(Error::conflict("backup_schedule.too_many", detail).into());
        }
        let create = Command::Create(Box::new(created.clone()));
        match unit.apply::<BackupSchedule>(&id.to_string(), create).await {
            Ok(_) => {}
            Err(Refused::Judged(Refusal::AlreadyExists)) => return Err(numbers::taken()),
            Err(refused) => return Err(refused.or_else(Error::from).into()),
        }
        unit.write(give(&id, created.owner));
        let position = unit.commit().await.map_err(numbers::tried)?.position;
        Ok(Done { value: id, position, replayed: false })
    }

    /// Changes a schedule; what the input leaves out stays as it is.
    pub async fn change(
        &self,
        schedule: &Owned<ScheduleId>,
        input: &ScheduleInput,
    ) -> Result<Done<()>, Error> {
        retrying!(self.try_change(schedule, input))
    }

    async fn try_change(
        &self,
        schedule: &Owned<ScheduleId>,
        input: &ScheduleInput,
    ) -> Result<Done<()>, Tried> {
        let meta = schedule.actor().metadata("backup_schedule.change");
        let mut unit = Unit::new(&self.applications.store, meta);
        unit.owned_by(schedule.owner());
        let id = schedule.id().to_string();
        let state = unit.load::<BackupSchedule>(&id).await?;
        let live = state.live().ok_or(Error::NotFound)?;
        let settings = input.over(Some(&live.settings))?;
        let next = if is_as_due(live, &settings) { live.next } else { self.next(&settings)? };
        apply(&mut unit, &id, Command::Change { settings, next }).await?;
        if unit.is_empty() {
            crate::agreed::not_so_already(schedule.actor())?;
        }
        self.commit(unit).await
    }

    /// Ends a schedule. The backups that it made stay; a backup that is being made is finished.
    pub async fn delete(&self, schedule: &Owned<ScheduleId>) -> Result<Done<()>, Error> {
        retrying!(self.try_delete(schedule))
    }

    async fn try_delete(&self, schedule: &Owned<ScheduleId>) -> Result<Done<()>, Tried> {
        let meta = schedule.actor().metadata("backup_schedule.delete");
        let mut unit = Unit::new(&self.applications.store, meta);
        unit.owned_by(schedule.owner());
        let delete = Command::Delete { reason: Deleted::Asked };
        apply(&mut unit, &schedule.id().to_string(), delete).await?;
        unit.write(take_away(schedule.id()));
        self.commit(unit).await
    }

    async fn commit(&self, unit: Unit<'_>) -> Result<Done<()>, Tried> {
        let position = if unit.is_empty() {
            *self.applications.store.watch_head().borrow()
        } else {
            unit.commit().await?.position
        };
        Ok(Done { value: (), position, replayed: false })
    }

    /// The proof that the caller may have an application backed up. What is someone else's, is gone
    /// or never was, is one and the same error.
    pub async fn application(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Owned<ApplicationId>, Error> {
        let proof = Owned::prove_text(&self.applications.store, actor, id).await;
        proof.map_err(|error| match error {
            Error::NotFound => unknown_application(),
            other => other,
        })
    }

    /// When these settings fire next.
    fn next(&self, settings: &Settings) -> Result<Option<Micros>, Error> {
        let calendar = calendar(settings)?;
        Ok(settings.enabled.then(|| calendar.next(self.clock.now())).flatten())
    }

    fn now(&self) -> Micros {
        self.clock.now()
    }
}

/// Whether a schedule with these settings fires when it was about to fire anyway.
fn is_as_due(live: &Live, settings: &Settings) -> bool {
    let now = &live.settings;
    (&settings.cron, &settings.timezone, settings.enabled)
        == (&now.cron, &now.timezone, now.enabled)
}

/// The calendar of settings that are stored. Time zones come and go: it can fail.
fn calendar(settings: &Settings) -> Result<Calendar, Error> {
    Calendar::of(settings).map_err(|ValueError { code, message }| {
        let field = if code.ends_with("timezone_invalid") { "timezone" } else { "cron" };
        Error::invalid(field, code, message)
    })
}

fn unknown_application() -> Error {
    let detail = "you have no application of this id";
    Error::invalid("application_id", "backup_schedule.application_unknown", detail)
}

async fn apply(unit: &mut Unit<'_>, id: &str, command: Command) -> Result<(), Error> {
    let judged = unit.apply::<BackupSchedule>(id, command).await;
    judged.map(drop).map_err(|refused| refused.or_else(Error::from))
}

/// What stands beside events of a run.
fn on_behalf(schedule: ScheduleId, owner: UserId, command: &'static str) -> crate::Metadata {
    Actor::schedule(schedule, owner).metadata(command)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::AlreadyExists
            | Refusal::NotDue
            | Refusal::StillRunning
            | Refusal::NotThisRun => Self::conflict("backup_schedule.state", refusal.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
