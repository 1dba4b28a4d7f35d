//! What the sagas need of the outside world; adapters live in other crates.

mod connector;
mod hypervisor;
mod types;

pub use connector::{ConnectionSpec, Connector, Credential, Trust};
pub use hypervisor::{Hypervisor, Hypervisors};
pub use types::*;
