//! The lease aggregate.

mod event;
pub use event::*;
