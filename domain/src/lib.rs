//! What is true: pure aggregates, their events and the values they are made of; no I/O, no clock.

pub mod admin_action;
pub mod application;
pub mod backup;
pub mod backup_run;
pub mod backup_schedule;
pub mod call;
#[cfg(test)]
mod fixture;
pub mod host;
pub mod keys;
pub mod known;
pub mod lease;
pub mod log;
pub mod operation;
pub mod plan;
pub mod refusal;
pub mod secret_use;
pub mod settings;
pub mod user;
pub mod value;

pub use value::{
    AddressMode, ApplicationId, BackupId, Cidr, ClusterName, Cores, EnvValue, Gibibytes, HostId,
    Hostname, LeaseKey, Mebibytes, NetworkSettings, NetworkSettingsInput, NodeName, OperationId,
    Port, PortPool, Resources, ScheduleId, SecretId, SessionId, UserId, ValueError, Vmid,
};
