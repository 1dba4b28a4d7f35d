//! Values that can only be made by parsing: each has one fallible door and private fields.

mod hostname;
mod id;
mod lease_key;
mod network;
mod node;
mod number;
mod resources;

pub use hostname::Hostname;
pub use id::{
    ApplicationId, BackupId, HostId, OperationId, ScheduleId, SecretId, SessionId, UserId,
};
pub use lease_key::{LeaseKey, PortPool};
pub use network::{AddressMode, Cidr, NetworkSettings, NetworkSettingsInput};
pub use node::{ClusterName, NodeName};
pub use number::{Cores, Gibibytes, Mebibytes, Port, Vmid};
pub use resources::{EnvValue, Resources};

/// Why a text or number is not the value it was meant to be; `Display` is a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// Stable dotted code, e.g. `hostname.invalid`.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ValueError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
