//! Read models: the log folded into rows that answer a request with one query.
//!
//! A [`Projection`] folds the events of one kind of stream into one row per stream. [`Views`] keeps
//! the rows of all projections in SQLite or PostgreSQL, follows the log, rebuilds and verifies.
//! Identity, roles and ownership are never read from here.

pub mod applications;
mod back;
mod backend;
pub mod backup_schedules;
pub mod backups;
mod build;
mod cell;
mod digest;
mod error;
mod feed;
mod fold;
pub mod hosts;
pub mod leases;
pub mod operations;
mod pace;
mod pages;
mod projection;
pub mod replay;
mod runner;
mod status;
mod step;
mod text;
mod unit;
mod verify;
mod views;

pub use applications::{App, AppOperation, Applications};
pub use backend::{Location, discard_damaged, sqlite_file};
pub use backup_schedules::{BackupSchedule, BackupSchedules, ScheduleResult, ScheduledBackup};
pub use backups::{Backup, BackupStats, Backups};
pub use build::{BuildProgress, OnProgress, Rebuild, Rebuilt};
pub use cell::{Cell, Column, Kind, Table};
pub use digest::{Replay, Replayed};
pub use error::Error;
pub use feed::Feed;
pub use hosts::{Host, Hosts, Node};
pub use leases::{LeaseRow, Leases};
pub use operations::{LogLine, Operation, Operations};
pub use pace::Pace;
pub use projection::{AnyProjection, At, Cannot, Projection, boxed};
pub use runner::Runner;
pub use status::{Previous, State, Status};
pub use text::Moment;
pub use verify::{Difference, Verdict};
pub use views::{Page, Views, standard};
