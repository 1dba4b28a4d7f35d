//! The client over real HTTPS against a server that says exactly what a test tells it to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificate;
mod credentials;
mod malformed;
mod recorded;
mod server;
mod wire;
