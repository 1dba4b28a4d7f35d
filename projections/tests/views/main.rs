//! Read models on both stores: what they hold, and that they lose nothing and count nothing twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod applications;
mod backups;
mod between;
mod builds;
mod followers;
mod generations;
mod hosts_and_leases;
mod laws;
mod operations;
mod replay;
mod samples;
mod standing;
mod support;
mod verification;
