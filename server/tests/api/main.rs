//! The interface as a client sees it: black box over HTTP, a server of its own for each test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod protocol;
mod stores;
