//! The host aggregate.

mod event;
pub use event::*;
