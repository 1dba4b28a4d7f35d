//! The client against the simulator: what each writes of Proxmox must fit the other's reading.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod guest;
mod host;
mod life;
mod trust;
