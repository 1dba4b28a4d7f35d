//! What the end-to-end tests share: a server process, an HTTP client as a person's browser or script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

pub mod backups;
pub mod canary;
pub mod checker;
pub mod database;
pub mod golden;
pub mod history;
pub mod http;
pub mod judged;
pub mod lab;
pub mod matrix;
pub mod ports;
pub mod process;
pub mod rig;

/// Prints one measured figure; `make test` collects these lines at its end.
#[macro_export]
macro_rules! figure {
    ($($part:tt)*) => { println!("figure: {}", format!($($part)*)) };
}
