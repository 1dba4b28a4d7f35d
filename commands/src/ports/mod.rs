//! What the sagas need of the outside world; adapters live in other crates.

mod clusters;
mod connector;
mod copy;
mod effects;
mod hypervisor;
mod process;
mod reason;
mod types;
mod usage;

pub use clusters::{ClusterView, Clusters, NodeView};
pub use connector::{ConnectionSpec, Connector, Credential, Trust};
pub use copy::{NewCopy, NewRestored};
pub use effects::{Prober, SecretReader};
pub use hypervisor::{Hypervisor, Hypervisors};
pub use process::{ArchivedConfig, Process};
pub use reason::Reason;
pub use types::*;
pub use usage::{Span, UsageSample};
