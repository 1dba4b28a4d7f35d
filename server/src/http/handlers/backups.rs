//! Backups: made, listed, counted, removed.

use proximity_commands::applications::{BackupWish, RestoreWish};
use proximity_commands::policy::Owned;
use proximity_domain::{ApplicationId, BackupId};
use proximity_projections::backups::BackupFilter;
use proximity_projections::{Backup, BackupStats};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::apps;
use super::page::{LAST_PAGE, MOST_OF_A_PAGE, within};
use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// A list of backups.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupList {
    /// Newest first.
    pub backups: Vec<Backup>,
    /// How many there are in all.
    pub total: u64,
}

/// Backups in an answer to whoever does not ask for pages.
const UNPAGED: u32 = 1_000;

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BackupsWanted {
    /// From 1.
    pub page: Option<i64>,
    /// 1 to 100. Without it a page holds 1000: old clients take the first for all of them.
    pub per_page: Option<i64>,
}

/// How a backup is to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CreateBackup {
    /// `snapshot` (the default), `suspend` or `stop`.
    #[serde(default)]
    #[schema(example = "snapshot")]
    pub backup_type: Option<String>,
    /// `zstd` (the default), `gzip` or `lzo`.
    #[serde(default)]
    #[schema(example = "zstd")]
    pub compression: Option<String>,
}

/// How a backup is to be restored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RestoreBackup {
    /// Overwrite the container instead of putting another one in its place. Proxmox destroys the old
    /// disks before it has extracted the archive: what fails then is lost.
    #[serde(default)]
    pub in_place: bool,
    /// Destroy volumes of the container whose contents the backup does not hold: Proxmox stores a mount
    /// point only when it says `backup=1`. The restored container has them anew and empty. Its snapshots
    /// go, too. Without it such a restore is refused (`restore.would_lose_volumes`).
    #[serde(default)]
    pub lose_volumes: bool,
}

/// A backup that is being made, restored or removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupUnderway {
    /// Its number.
    pub id: i64,
    /// The same under the name that a restore uses.
    pub backup_id: i64,
    /// The application that it is of.
    pub application_id: String,
    /// `creating`, `restoring` or `deleting`.
    pub status: String,
    /// A sentence for a person.
    pub message: String,
    /// The operation that carries it out.
    pub operation: String,
}

async fn application(call: &Call) -> Result<Owned<ApplicationId>, Problem> {
    let id: String = call.param("id")?;
    Ok(Owned::prove_text(&call.app.store, &call.actor, &id).await?)
}

/// The proof that the caller may see and change the backup, and that it is one of the application.
pub(in crate::http) async fn backup(call: &Call) -> Result<(Owned<BackupId>, Backup), Problem> {
    let application = application(call).await?;
    let id: String = call.param("backup_id")?;
    let owned: Owned<BackupId> = Owned::prove_text(&call.app.store, &call.actor, &id).await?;
    let found = call.app.views.backup(owned.id().0).await.map_err(unavailable)?;
    let row = found
        .filter(|row| row.application_id == application.id().as_str())
        .ok_or_else(Problem::not_found)?;
    Ok((owned, row))
}

async fn listed(call: &Call, filter: BackupFilter) -> Result<Reply, Problem> {
    let wanted: BackupsWanted = call.query()?;
    let page = within("page", wanted.page, 1, 1, LAST_PAGE)?;
    let per_page = within("per_page", wanted.per_page, UNPAGED, 1, MOST_OF_A_PAGE)?;
    let found = call.app.views.backups(&filter, page, per_page).await.map_err(unavailable)?;
    Reply::json(&BackupList { backups: found.items, total: found.total })
}

/// All backups that the caller may see; those of applications that are gone, too.
#[utoipa::path(get, path = "/api/backups", tag = "backups", params(BackupsWanted), responses((status = 200, description = "The backups", body = BackupList)))]
pub async fn list_all(call: Call) -> Result<Reply, Problem> {
    listed(&call, BackupFilter { owner: call.only_of(), application: None }).await
}

/// The backups of an application.
#[utoipa::path(get, path = "/api/apps/{id}/backups", tag = "backups", params(("id" = String, Path, description = "The application's id"), BackupsWanted), responses((status = 200, description = "Its backups", body = BackupList)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let owned = application(&call).await?;
    let application = Some(owned.id().to_string());
    listed(&call, BackupFilter { owner: None, application }).await
}

/// Makes a backup. Where a disk's storage has no snapshots, Proxmox falls back to `suspend`; the
/// completed backup says so in `backup_type`.
#[utoipa::path(post, path = "/api/apps/{id}/backups", tag = "backups", params(("id" = String, Path, description = "The application's id")), request_body(content = CreateBackup, description = "May be left out"), responses((status = 202, description = "An operation makes it", body = BackupUnderway)))]
pub async fn create(call: Call) -> Result<Reply, Problem> {
    let owned = application(&call).await?;
    let wanted: CreateBackup = call.json_or_default()?;
    let mut wish = BackupWish::default();
    if let Some(text) = wanted.backup_type {
        wish.mode = text.parse().map_err(|_| {
            let detail = "a backup is one of snapshot, suspend, stop";
            Problem::field("/backup_type", "backup.type_invalid", detail)
        })?;
    }
    if let Some(text) = wanted.compression {
        wish.compression = text.parse().map_err(|_| {
            let detail = "a compression is one of zstd, gzip, lzo";
            Problem::field("/compression", "backup.compression_invalid", detail)
        })?;
    }
    apps::unchanged(&call, &owned).await?;
    let key = call.once();
    let done = call.app.commands.applications.back_up(&owned, wish, key.as_ref()).await?;
    call.app.seen(done.position).await;
    underway(done, "creating", "The backup will be made")
}

/// Figures about an application's backups.
#[utoipa::path(get, path = "/api/apps/{id}/backups/stats", tag = "backups", params(("id" = String, Path, description = "The application's id")), responses((status = 200, description = "The figures", body = BackupStats)))]
pub async fn stats(call: Call) -> Result<Reply, Problem> {
    let owned = application(&call).await?;
    let stats = call.app.views.backup_stats(owned.id().as_str()).await.map_err(unavailable)?;
    Reply::json(&stats)
}

/// One backup.
#[utoipa::path(get, path = "/api/apps/{id}/backups/{backup_id}", tag = "backups", params(("id" = String, Path, description = "The application's id"), ("backup_id" = i64, Path, description = "The backup's number")), responses((status = 200, description = "The backup", body = Backup)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    let (_, row) = backup(&call).await?;
    Ok(Reply::json(&row)?.tagged())
}

/// Removes a backup and its archive; works for an application that is gone, too.
#[utoipa::path(delete, path = "/api/apps/{id}/backups/{backup_id}", tag = "backups", params(("id" = String, Path, description = "The application's id"), ("backup_id" = i64, Path, description = "The backup's number")), responses((status = 202, description = "An operation removes it", body = BackupUnderway)))]
pub async fn delete(call: Call) -> Result<Reply, Problem> {
    let (owned, _) = backup(&call).await?;
    // Read again behind the position that it is compared at.
    call.unchanged_since(async || Reply::json(&backup(&call).await?.1)).await?;
    let key = call.once();
    let done = call.app.commands.applications.delete_backup(&owned, key.as_ref()).await?;
    call.app.seen(done.position).await;
    underway(done, "deleting", "The backup will be removed")
}

/// Restores a backup: into a new container, which takes the old one's place when it has been seen
/// healthy. Until then the old one can be started again, and a restore that fails starts it. The
/// application is afterwards what it was before, running or stopped; its `lxc_id` has changed.
#[utoipa::path(post, path = "/api/apps/{id}/backups/{backup_id}/restore", tag = "backups", params(("id" = String, Path, description = "The application's id"), ("backup_id" = i64, Path, description = "The backup's number")), request_body(content = RestoreBackup, description = "May be left out"), responses((status = 202, description = "An operation restores it", body = BackupUnderway)))]
pub async fn restore(call: Call) -> Result<Reply, Problem> {
    let (owned, _) = backup(&call).await?;
    // Read again behind the position that it is compared at.
    call.unchanged_since(async || Reply::json(&backup(&call).await?.1)).await?;
    let wanted: RestoreBackup = call.json_or_default()?;
    let wish = RestoreWish { in_place: wanted.in_place, lose_volumes: wanted.lose_volumes };
    let key = call.once();
    let done = call.app.commands.applications.restore(&owned, wish, key.as_ref()).await?;
    call.app.seen(done.position).await;
    underway(done, "restoring", "The backup will be restored")
}

fn underway(
    done: proximity_commands::Done<proximity_commands::applications::BackupAccepted>,
    status: &str,
    message: &str,
) -> Result<Reply, Problem> {
    let operation = done.value.operation.to_string();
    let location = format!("/api/operations/{operation}");
    let body = BackupUnderway {
        id: done.value.backup.0,
        backup_id: done.value.backup.0,
        application_id: done.value.application.to_string(),
        status: status.to_owned(),
        message: message.to_owned(),
        operation,
    };
    Ok(Reply::accepted(&body)?.location(location).at(done.position))
}
