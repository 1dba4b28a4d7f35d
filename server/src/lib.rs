//! The server: HTTP, command line and configuration; composes all the other crates.

pub mod app;
pub mod cli;
pub mod config;
mod control;
pub mod demo;
pub mod http;
mod logging;
mod moment;
mod publish;
mod restore;
mod setup;
pub mod stores;
mod undumped;
