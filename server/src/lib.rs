//! The server: HTTP, command line and configuration; composes all the other crates.

pub mod app;
pub mod cli;
pub mod config;
mod control;
pub mod demo;
mod filters;
pub mod http;
mod logging;
mod moment;
pub mod past;
mod publish;
mod restore;
mod setup;
mod shell;
pub mod stores;
pub mod trace;
mod undumped;

/// What all programs that contain the server allocate with; see `docs/adr/0023-jemalloc-and-sqlite.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
