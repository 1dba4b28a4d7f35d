//! The server: HTTP, command line and configuration; composes all the other crates.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
mod logging;
mod publish;
pub mod stores;
