//! What the log says about schedules, their runs and their backups, folded up to its head.
//!
//! It only says where to look: whatever is done is decided anew on the streams themselves.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::backup::Event as BackupEvent;
use proximity_domain::backup_run::{BackupRun, RunId};
use proximity_domain::backup_schedule::BackupSchedule;
use proximity_domain::{ApplicationId, BackupId, ScheduleId};
use proximity_eventstore::{Position, Recorded, Store};
use serde::de::DeserializeOwned;

use crate::clock::Micros;
use crate::error::Error;

/// Events read at a time.
const PAGE: usize = 2_000;

/// Schedules, runs and backups as the log describes them.
#[derive(Default)]
pub(super) struct Seen {
    cursor: Position,
    schedules: BTreeMap<ScheduleId, BackupSchedule>,
    runs: BTreeMap<RunId, BackupRun>,
    /// Backups of schedules that there is a record of.
    made: BTreeMap<(ScheduleId, ApplicationId), BTreeSet<BackupId>>,
    by: BTreeMap<BackupId, (ScheduleId, ApplicationId)>,
    /// Schedules whose application was removed.
    orphans: BTreeSet<ScheduleId>,
}

impl Seen {
    /// Reads the log up to its head.
    pub async fn catch_up(&mut self, store: &Store) -> Result<(), Error> {
        loop {
            let page = store
                .feed(self.cursor, PAGE)
                .await
                .map_err(|error| Error::internal("the log cannot be read", error))?;
            for event in &page {
                self.follow(event)?;
                self.cursor = event.position;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Schedules whose time has come.
    pub fn due(&self, now: Micros) -> Vec<ScheduleId> {
        let is_due = |state: &BackupSchedule| {
            state.live().and_then(|live| live.next).is_some_and(|next| next <= now)
        };
        self.schedules.iter().filter(|(_, state)| is_due(state)).map(|(id, _)| *id).collect()
    }

    /// Schedules whose application was removed.
    pub fn orphans(&self) -> Vec<ScheduleId> {
        self.orphans.iter().copied().collect()
    }

    /// Runs that are open, also of schedules that were deleted meanwhile: those are to be ended.
    pub fn runs(&self) -> Vec<(RunId, BackupRun)> {
        self.runs.iter().map(|(id, run)| (*id, run.clone())).collect()
    }

    /// The backups of an application that a schedule asked for.
    pub fn made(&self, schedule: ScheduleId, application: &ApplicationId) -> Vec<BackupId> {
        let found = self.made.get(&(schedule, application.clone()));
        found.into_iter().flatten().copied().collect()
    }

    fn follow(&mut self, event: &Recorded) -> Result<(), Error> {
        match event.aggregate_type.as_str() {
            "backup_schedule" => self.follow_schedule(event),
            "backup_run" => self.follow_run(event),
            "backup" => self.follow_backup(event),
            "application" if event.event_type == "application.removed" => {
                let gone = |state: &BackupSchedule| {
                    let application = state.live().and_then(|live| live.application.as_ref());
                    application.is_some_and(|id| id.as_str() == event.aggregate_id)
                };
                let orphans = self.schedules.iter().filter(|(_, state)| gone(state));
                self.orphans.extend(orphans.map(|(id, _)| *id));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn follow_schedule(&mut self, event: &Recorded) -> Result<(), Error> {
        let id: ScheduleId = event.aggregate_id.parse().map_err(malformed)?;
        let state = self.schedules.remove(&id).unwrap_or_default().evolve(read(event)?);
        if state.live().is_some() {
            self.schedules.insert(id, state);
        } else {
            self.orphans.remove(&id);
        }
        Ok(())
    }

    fn follow_run(&mut self, event: &Recorded) -> Result<(), Error> {
        let id: RunId = event.aggregate_id.parse().map_err(malformed)?;
        let state = self.runs.remove(&id).unwrap_or_default().evolve(read(event)?);
        if state.open().is_some() {
            self.runs.insert(id, state);
        }
        Ok(())
    }

    fn follow_backup(&mut self, event: &Recorded) -> Result<(), Error> {
        match event.event_type.as_str() {
            "backup.requested" => {
                let BackupEvent::Requested(requested) = read(event)? else { return Ok(()) };
                let Some(scheduled) = requested.scheduled else { return Ok(()) };
                let id: BackupId = event.aggregate_id.parse().map_err(malformed)?;
                let key = (scheduled.schedule, requested.application);
                self.made.entry(key.clone()).or_default().insert(id);
                self.by.insert(id, key);
            }
            "backup.deleted" => {
                let id: BackupId = event.aggregate_id.parse().map_err(malformed)?;
                if let Some(key) = self.by.remove(&id)
                    && let Some(made) = self.made.get_mut(&key)
                {
                    made.remove(&id);
                    if made.is_empty() {
                        self.made.remove(&key);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn read<E: DeserializeOwned>(event: &Recorded) -> Result<E, Error> {
    serde_json::from_str(&event.payload).map_err(malformed)
}

fn malformed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("an event of a schedule cannot be read", source)
}
