//! The simulator over real HTTPS, held against what a real Proxmox VE 9.1.7 answered.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod control;
mod creation;
mod faults;
mod framing;
mod guests;
mod life;
mod locks;
mod nodes;
mod restores;
mod rights;
mod storage;
mod support;
