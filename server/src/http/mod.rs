//! HTTP: the table of routes, the one way through which each request goes, and the one error shape.

mod accept;
mod browser;
pub mod call;
pub mod codes;
mod cookies;
pub mod csrf;
mod dispatch;
mod dry;
pub mod events;
pub mod export;
pub mod handlers;
mod identity;
pub mod metrics;
mod once;
pub mod openapi;
mod origin;
pub mod position;
pub mod problem;
pub mod reply;
pub mod route;
pub mod routes;
mod serve;
pub mod streams;

pub use serve::{Listening, serve, serve_table};
