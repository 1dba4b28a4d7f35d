//! The client of Proxmox VE: its HTTPS interface behind the port `commands::ports::Hypervisor`.
//!
//! One call of the port is one request (or a few reads). Nothing here decides anything: what a
//! refusal means for an operation is the saga's business. The behaviours that this client copes
//! with are those of Proxmox VE 7 to 9.1: errors in the reason phrase, empty bodies, replies 3 s late,
//! pseudo codes 595 to 599, numbers as texts, lists that are null.
//!
//! Four rules hold everywhere:
//! - a write is sent once. Only a 401, which is given before anything happens, is answered by a new
//!   log-in and a second try; everything else that leaves the outcome open is `Unknown`;
//! - a read is repeated a few times when its connection broke, never when the answer was an answer;
//! - what goes into a container's configuration is one line each, or is not sent (`lines`);
//! - no secret is in a `Debug`, a log line or an error: server texts are cleaned of them first.

mod archived;
mod auth;
mod classify;
mod client;
mod connector;
mod copy;
mod create;
mod decode;
mod hypervisor;
mod identity;
mod limits;
mod lines;
mod mentions;
mod oci;
mod request;
mod rights;
mod row;
#[cfg(test)]
mod schema;
mod silence;
mod tasks;
mod tls;
mod transport;
mod upid;
mod usage;

pub use client::PveClient;
pub use connector::PveConnector;
pub use limits::Limits;
pub use tls::probe_fingerprint;
