//! The operation aggregate.

mod event;
pub use event::*;
