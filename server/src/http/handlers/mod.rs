//! The handlers, one file for each group of calls: parse, call the command or the view, answer.

pub mod access;
pub mod apps;
pub mod auth;
pub mod backup_schedules;
pub mod backups;
pub mod catalog;
pub mod copies;
pub mod core;
pub mod docs;
pub mod health;
pub mod history;
pub mod hosts;
pub mod operations;
mod page;
pub mod past;
mod ports;
pub mod reconcile;
pub mod restore;
pub mod settings;
pub mod trace;
pub mod usage;
pub mod users;
pub mod verification;
