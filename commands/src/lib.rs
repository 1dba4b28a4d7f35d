//! Commands and sagas: who may do what, which streams it touches, and how it is carried out.

pub mod accounts;
pub mod actor;
pub mod admin_actions;
pub mod agreed;
pub mod answers;
pub mod applications;
pub mod clock;
pub mod clusters;
pub mod directory;
pub mod dispatch;
pub mod error;
mod host_usage;
pub mod hosts;
pub mod keys;
pub mod leases;
pub mod marker;
mod network;
mod numbers;
pub mod once;
pub mod operations;
pub mod passwords;
pub mod placement;
pub mod policy;
pub mod pools;
pub mod ports;
pub mod preview;
pub mod reconcile;
pub mod redact;
pub mod refusals;
pub mod restored;
mod retry;
mod room;
mod rows;
pub mod saga;
pub mod schedules;
pub mod secret;
pub mod secret_uses;
pub mod secrets;
pub mod seen;

pub mod sessions;
pub mod settings;
mod single;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod told;
mod unsure;
mod volumes;

pub use actor::{Actor, CredentialUsed, Identity, Metadata, Proof, Shell};
pub use error::{Error, FieldError};
pub use once::{Done, OnceKey};
pub use secret::Secret;
