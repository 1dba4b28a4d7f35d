//! Schedules of backups: made, listed, changed, deleted.

use proximity_commands::policy::Owned;
use proximity_commands::schedules::ScheduleInput;
use proximity_domain::ScheduleId;
use proximity_projections::{BackupSchedule, backup_schedules};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{LAST_PAGE, MOST_OF_A_PAGE, within};
use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// A list of schedules.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupScheduleList {
    /// Oldest first.
    pub schedules: Vec<BackupSchedule>,
    /// How many there are in all.
    pub total: u64,
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SchedulesWanted {
    /// From 1.
    pub page: Option<i64>,
    /// 1 to 100, which is the default.
    pub per_page: Option<i64>,
}

/// A schedule to be made, or what is to be different about one: what is left out (or null) then stays.
#[derive(Debug, Deserialize, ToSchema)]
pub struct WriteBackupSchedule {
    /// The application to back up; left out: all that the caller has when it fires. It cannot be
    /// changed.
    #[serde(default)]
    #[schema(example = "nginx-0a1b2c3d")]
    pub application_id: Option<String>,
    /// Five fields: minute, hour, day of month, month, day of week. A new schedule needs it.
    #[serde(default)]
    #[schema(example = "0 2 * * *")]
    pub cron: Option<String>,
    /// The time zone in which `cron` is meant; `UTC` by default.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    pub timezone: Option<String>,
    /// `snapshot` (the default), `suspend` or `stop`.
    #[serde(default)]
    #[schema(example = "snapshot")]
    pub backup_type: Option<String>,
    /// `zstd` (the default), `gzip` or `lzo`.
    #[serde(default)]
    #[schema(example = "zstd")]
    pub compression: Option<String>,
    /// 0 to 1000: so many of the newest backups are kept. A backup is kept when at least one of the
    /// four rules keeps it; all four 0 (the default) keep everything.
    #[serde(default)]
    #[schema(example = 3)]
    pub keep_last: Option<i64>,
    /// 0 to 1000: the newest backup of each of so many days that have one.
    #[serde(default)]
    #[schema(example = 7)]
    pub keep_daily: Option<i64>,
    /// 0 to 1000: the same by weeks, from Monday.
    #[serde(default)]
    #[schema(example = 4)]
    pub keep_weekly: Option<i64>,
    /// 0 to 1000: the same by months.
    #[serde(default)]
    #[schema(example = 6)]
    pub keep_monthly: Option<i64>,
    /// Whether it fires; true by default.
    #[serde(default)]
    pub enabled: Option<bool>,
}

impl WriteBackupSchedule {
    fn input(&self) -> ScheduleInput {
        ScheduleInput {
            cron: self.cron.clone(),
            timezone: self.timezone.clone(),
            backup_type: self.backup_type.clone(),
            compression: self.compression.clone(),
            keep_last: self.keep_last,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            enabled: self.enabled,
        }
    }
}

/// The proof that the caller may see and change the schedule.
pub(in crate::http) async fn schedule(call: &Call) -> Result<Owned<ScheduleId>, Problem> {
    let id: String = call.param("id")?;
    Ok(Owned::prove_text(&call.app.store, &call.actor, &id).await?)
}

/// The application that a new schedule is to be for.
pub(in crate::http) fn names(call: &Call) -> Result<Option<String>, Problem> {
    Ok(call.json::<WriteBackupSchedule>()?.application_id)
}

/// Refuses to whom that application is none.
pub(in crate::http) async fn named(call: &Call) -> Result<(), Problem> {
    let Some(id) = names(call)? else { return Ok(()) };
    Ok(call.app.commands.schedules.application(&call.actor, &id).await.map(drop)?)
}

/// The schedule as its own stream says.
async fn row(call: &Call, id: ScheduleId) -> Result<BackupSchedule, Problem> {
    let id = id.to_string();
    let events = call.app.store.load_stream("backup_schedule", &id).await.map_err(unavailable)?;
    let found = backup_schedules::after(&id, &events).map_err(|error| {
        tracing::error!(%error, schedule = id, "a schedule cannot be told");
        Problem::internal()
    })?;
    found.ok_or_else(Problem::not_found)
}

/// What only changes when someone changes it: the state that `If-Match` is about.
fn settings(row: &BackupSchedule) -> Result<Reply, Problem> {
    let mut settings = row.clone();
    settings.next_run = None;
    settings.last_run = None;
    settings.last_result = None;
    settings.is_running = false;
    Reply::json(&settings)
}

fn shown(row: &BackupSchedule) -> Result<Reply, Problem> {
    Ok(Reply::json(row)?.tagged_as(&settings(row)?))
}

/// All schedules that the caller may see.
#[utoipa::path(get, path = "/api/backup-schedules", tag = "backups", params(SchedulesWanted), responses((status = 200, description = "The schedules", body = BackupScheduleList)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let wanted: SchedulesWanted = call.query()?;
    let page = within("page", wanted.page, 1, 1, LAST_PAGE)?;
    let per_page = within("per_page", wanted.per_page, MOST_OF_A_PAGE, 1, MOST_OF_A_PAGE)?;
    let found = call.app.views.backup_schedules(call.only_of(), page, per_page);
    let found = found.await.map_err(unavailable)?;
    Reply::json(&BackupScheduleList { schedules: found.items, total: found.total })
}

/// Makes a schedule. When its time comes, each application is backed up by an operation of its own,
/// and then those older backups of the schedule are removed that no `keep_…` rule keeps. Backups
/// that people made are never removed.
#[utoipa::path(post, path = "/api/backup-schedules", tag = "backups", request_body = WriteBackupSchedule, responses((status = 201, description = "Made", body = BackupSchedule)))]
pub async fn create(call: Call) -> Result<Reply, Problem> {
    let wanted: WriteBackupSchedule = call.json()?;
    let schedules = &call.app.commands.schedules;
    let application = wanted.application_id.as_deref();
    let done = schedules.create(&call.actor, application, &wanted.input()).await?;
    call.app.seen(done.position).await;
    let row = row(&call, done.value).await?;
    let location = format!("/api/backup-schedules/{}", row.id);
    Ok(Reply::created(&row)?.location(location).at(done.position))
}

/// One schedule.
#[utoipa::path(get, path = "/api/backup-schedules/{id}", tag = "backups", params(("id" = i64, Path, description = "The schedule's number")), responses((status = 200, description = "The schedule", body = BackupSchedule)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    let owned = schedule(&call).await?;
    let found = call.app.views.backup_schedule(owned.id().0).await.map_err(unavailable)?;
    shown(&found.ok_or_else(Problem::not_found)?)
}

/// Changes a schedule; what is left out stays as it is.
#[utoipa::path(put, path = "/api/backup-schedules/{id}", tag = "backups", params(("id" = i64, Path, description = "The schedule's number")), request_body = WriteBackupSchedule, responses((status = 200, description = "Changed", body = BackupSchedule)))]
pub async fn change(call: Call) -> Result<Reply, Problem> {
    let owned = schedule(&call).await?;
    call.unchanged_since(async || settings(&row(&call, *owned.id()).await?)).await?;
    let before = row(&call, *owned.id()).await?;
    let wanted: WriteBackupSchedule = call.json()?;
    if wanted.application_id.is_some() && wanted.application_id != before.application_id {
        let detail = "a schedule's application does not change; make another schedule";
        return Err(Problem::field("/application_id", "backup_schedule.application_fixed", detail));
    }
    let done = call.app.commands.schedules.change(&owned, &wanted.input()).await?;
    call.app.seen(done.position).await;
    Ok(shown(&row(&call, *owned.id()).await?)?.at(done.position))
}

/// Deletes a schedule. Backups that it made stay, and are nobody's to remove but their owner's.
#[utoipa::path(delete, path = "/api/backup-schedules/{id}", tag = "backups", params(("id" = i64, Path, description = "The schedule's number")), responses((status = 204, description = "It fires no more")))]
pub async fn delete(call: Call) -> Result<Reply, Problem> {
    let owned = schedule(&call).await?;
    call.unchanged_since(async || settings(&row(&call, *owned.id()).await?)).await?;
    let done = call.app.commands.schedules.delete(&owned).await?;
    call.app.seen(done.position).await;
    Ok(Reply::no_content().at(done.position))
}
