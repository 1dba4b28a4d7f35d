//! The user aggregate.

mod event;
pub use event::*;
