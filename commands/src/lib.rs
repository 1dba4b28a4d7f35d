//! Commands and sagas: who may do what, which streams it touches, and how it is carried out.

pub mod actor;
pub mod clock;
pub mod directory;
pub mod dispatch;
pub mod error;
pub mod hosts;
pub mod keys;
pub mod marker;
pub mod passwords;
pub mod policy;
pub mod ports;
mod rows;
pub mod saga;
pub mod secret;
pub mod secrets;
pub mod settings;
#[cfg(test)]
mod testing;

pub use actor::{Actor, CredentialUsed, Identity, Metadata};
pub use error::{Error, FieldError};
pub use secret::Secret;
