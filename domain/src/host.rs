//! The host aggregate.

mod event;
mod fingerprint;

pub use event::*;
pub use fingerprint::Fingerprint;
