//! The settings aggregate.

mod event;
pub use event::*;
