//! A time has come: the schedule's stream says so once, and its run is planned in the same append.

use proximity_domain::application::Application;
use proximity_domain::backup_run::{BackupRun, Command as RunCommand, Planned, RunId};
use proximity_domain::backup_schedule::{BackupSchedule, Command, Deleted, Live, PassedOver};
use proximity_domain::user::User;
use proximity_domain::{ApplicationId, ScheduleId, UserId};
use proximity_eventstore::tables;

use super::{Schedules, apply, calendar, on_behalf};
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::policy::{Ownable as _, take_away};
use crate::rows::{Columns, text, unreadable};

/// Applications of one owner that are looked at.
const MANY: usize = 10_000;

impl Schedules {
    /// Fires a schedule whose time has come, or passes the time over. Of several servers that try,
    /// one succeeds: the others' append is stale, and there is nothing left for them to do.
    pub(super) async fn fire(&self, id: ScheduleId) -> Result<(), Tried> {
        let store = &self.applications.store;
        let (state, _) = load::<BackupSchedule>(store, &id.to_string()).await?;
        let Some(owner) = state.live().map(|live| live.owner) else { return Ok(()) };
        let mut unit = Unit::new(store, on_behalf(id, owner, "backup_schedule.fire"));
        unit.owned_by(owner);
        let state = unit.load::<BackupSchedule>(&id.to_string()).await?;
        let Some(live) = state.live() else { return Ok(()) };
        let now = self.now();
        let Some(due) = live.next.filter(|due| *due <= now) else { return Ok(()) };
        // However many times were missed meanwhile, this one stands for all of them.
        let next = calendar(&live.settings)?.next(now);
        if self.is_orphaned(&mut unit, live).await? {
            return self.end(unit, id).await;
        }
        let user = unit.load::<User>(&owner.to_string()).await?;
        let targets = if user.account().is_none_or(|account| account.disabled) {
            Err(PassedOver::OwnerDisabled)
        } else if live.running.is_some() {
            Err(PassedOver::StillRunning)
        } else {
            // A list that cannot be read is a failure, and tried again; it is no empty one.
            self.targets(live).await?
        };
        match targets {
            Err(reason) => {
                apply(&mut unit, &id.to_string(), Command::PassOver { due, next, reason }).await?;
            }
            Ok(targets) => {
                apply(&mut unit, &id.to_string(), Command::Fire { due, next }).await?;
                let run = RunId { schedule: id, due };
                unit.correlate(run);
                let settings = live.settings.clone();
                let planned = Planned { schedule: id, owner, due, settings, targets };
                let plan = RunCommand::Plan(Box::new(planned));
                let judged = unit.apply::<BackupRun>(&run.to_string(), plan).await;
                judged.map_err(|refused| {
                    refused.or_else(|why| Error::internal("a run cannot be planned", why))
                })?;
            }
        }
        unit.commit().await?;
        Ok(())
    }

    /// Ends a schedule whose application was removed.
    pub(super) async fn end_orphan(&self, id: ScheduleId) -> Result<(), Tried> {
        let store = &self.applications.store;
        let (state, _) = load::<BackupSchedule>(store, &id.to_string()).await?;
        let Some(live) = state.live() else { return Ok(()) };
        let mut unit = Unit::new(store, on_behalf(id, live.owner, "backup_schedule.end"));
        unit.owned_by(live.owner);
        if self.is_orphaned(&mut unit, live).await? {
            return self.end(unit, id).await;
        }
        Ok(())
    }

    async fn is_orphaned(&self, unit: &mut Unit<'_>, live: &Live) -> Result<bool, Error> {
        let Some(application) = &live.application else { return Ok(false) };
        let state = unit.load::<Application>(application.as_str()).await?;
        Ok(matches!(state, Application::Removed))
    }

    async fn end(&self, mut unit: Unit<'_>, id: ScheduleId) -> Result<(), Tried> {
        let delete = Command::Delete { reason: Deleted::ApplicationRemoved };
        apply(&mut unit, &id.to_string(), delete).await?;
        unit.write(take_away(&id));
        if !unit.is_empty() {
            unit.commit().await?;
        }
        Ok(())
    }

    /// The applications that are to be backed up now.
    async fn targets(&self, live: &Live) -> Result<Result<Vec<ApplicationId>, PassedOver>, Error> {
        if let Some(application) = &live.application {
            return Ok(Ok(vec![application.clone()]));
        }
        let found = self.applications_of(live.owner).await?;
        Ok(if found.is_empty() { Err(PassedOver::NoApplication) } else { Ok(found) })
    }

    /// All applications that a user has and that hold a container.
    async fn applications_of(&self, owner: UserId) -> Result<Vec<ApplicationId>, Error> {
        let store = &self.applications.store;
        let filter = vec![("kind", text(ApplicationId::KIND)), ("owner", text(owner))];
        let rows = store.rows(&tables::OWNERSHIP, filter, MANY).await.map_err(unreadable)?;
        let mut found = Vec::new();
        for row in rows.into_iter().map(Columns) {
            let id: ApplicationId = row.parsed("id")?;
            let (state, _) = load::<Application>(store, id.as_str()).await?;
            if state.live().is_some() {
                found.push(id);
            }
        }
        Ok(found)
    }
}
