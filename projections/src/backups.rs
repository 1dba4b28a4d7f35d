//! The read model of backups: one row each, which is the contract's `Backup`.

mod fold;
mod query;

pub use fold::Backups;
pub use query::BackupFilter;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::Moment;

/// A backup as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// 1, 2, 3 …
    pub id: i64,
    /// The application that it is of; it may be gone.
    pub application_id: String,
    /// The user id of the application's owner.
    pub owner: i64,
    /// The schedule that asked for it; null when a person did.
    #[serde(default)]
    pub schedule_id: Option<i64>,
    /// The archive's file name; empty while there is none.
    pub file_name: String,
    /// The storage that the archive is on.
    pub storage_name: String,
    /// Bytes; null while it is not known.
    pub size: Option<u64>,
    /// The same in MiB, rounded to hundredths.
    pub size_mb: Option<f64>,
    /// The same in GiB, rounded to hundredths.
    pub size_gb: Option<f64>,
    /// `snapshot`, `suspend` or `stop`: as asked for, and as it really was once it is completed.
    pub backup_type: String,
    /// `snapshot`, `suspend` or `stop`, as asked for.
    pub requested_type: String,
    /// `zstd`, `gzip` or `lzo`.
    pub compression: String,
    /// `creating`, `completed`, `failed`, `restoring` or `deleting`.
    pub status: String,
    /// Why it failed, or why the last operation on it did.
    pub error_message: Option<String>,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub created_at: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub updated_at: Moment,
    /// RFC 3339; null while it is not completed.
    #[schema(value_type = Option<String>)]
    pub completed_at: Option<Moment>,
    /// Whether there is an archive.
    pub is_completed: bool,
    /// Whether an operation makes, uses or removes it.
    pub is_in_progress: bool,
    /// That operation's id.
    pub operation: Option<String>,
}

/// Figures about an application's backups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackupStats {
    /// All there is a record of.
    pub total_backups: u64,
    /// Those with an archive.
    pub completed_backups: u64,
    /// Those that could not be made.
    pub failed_backups: u64,
    /// Those that are being made, used or removed.
    pub in_progress_backups: u64,
    /// GiB of all archives.
    pub total_size_gb: f64,
    /// MiB of an archive, on average; 0 when there is none.
    pub average_size_mb: f64,
}

/// Hundredths of a unit of bytes.
pub(crate) fn in_units(bytes: u64, unit: f64) -> f64 {
    // Exact enough: sizes are far below 2^52 bytes.
    (bytes as f64 / unit * 100.0).round() / 100.0
}

/// Bytes of a MiB.
pub(crate) const MEBIBYTE: f64 = 1_048_576.0;
/// Bytes of a GiB.
pub(crate) const GIBIBYTE: f64 = 1_073_741_824.0;
