//! Commands and sagas: who may do what, which streams it touches, and how it is carried out.

pub mod actor;
pub mod clock;
pub mod dispatch;
pub mod error;
pub mod keys;
pub mod marker;
pub mod passwords;
pub mod ports;
pub mod saga;
pub mod secret;

pub use actor::{Actor, CredentialUsed, Identity, Metadata};
pub use error::{Error, FieldError};
pub use secret::Secret;
