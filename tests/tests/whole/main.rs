//! The whole of the product in short scenes: the real store, client and program against the simulator.
//!
//! One program, since each costs a link of everything; what takes minutes has one of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod copies;
mod demonstration;
mod dies_at;
mod doctor;
mod given_up;
mod handed_keys;
mod keys;
mod left_named;
mod left_over;
mod lost_node;
mod orphans;
mod published;
mod reconcile;
mod roles;
mod sagas;
mod self_backup;
mod shell_acts;
mod shell_people;
mod shell_views;
mod strangers;
mod unlisted;
mod upgrade;
