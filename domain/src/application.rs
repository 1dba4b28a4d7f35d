//! The application aggregate.

mod event;
pub use event::*;
