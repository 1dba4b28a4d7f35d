//! HTTP: the table of routes, the one way through which each request goes, and the one error shape.

mod accept;
mod again;
mod browser;
pub mod call;
pub mod codes;
mod cookies;
pub mod csrf;
mod declared;
mod dispatch;
mod distinct;
mod dry;
pub mod events;
pub mod export;
pub mod handlers;
mod headers;
mod identity;
pub mod metrics;
mod noted;
pub mod once;
pub mod openapi;
mod origin;
mod own_acts;
mod peer;
pub mod position;
pub mod problem;
mod query;
pub mod reply;
pub mod route;
pub mod routes;
mod serve;
pub mod streams;
mod tags;
mod wording;

pub use serve::{Listening, serve, serve_table};
