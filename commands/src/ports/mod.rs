//! What the sagas need of the outside world; adapters live in other crates.

mod hypervisor;
mod types;

pub use hypervisor::{Hypervisor, Hypervisors};
pub use types::*;
