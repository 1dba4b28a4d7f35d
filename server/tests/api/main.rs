//! The interface as a client sees it: black box over HTTP, a server of its own for each test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod applications;
mod audit;
mod backups;
mod contract;
mod copies;
mod docs;
mod dry_runs;
mod ending;
mod events;
mod exports;
mod found;
mod harness;
mod idempotency;
mod matrix;
mod past;
mod plans;
mod preconditions;
mod protocol;
mod readers;
mod refusals;
mod restored_volumes;
mod restores;
mod rights;
mod schedule_runs;
mod schedules;
mod sessions;
mod stores;
mod strictness;
mod tokens;
mod trail;
mod unreadable;
mod upstream;
mod users;
mod verification;
mod world;
