//! A Proxmox VE host that is not there: its HTTPS API, its tasks, locks and mistakes, on loopback.
//!
//! Built after a sheet of behaviours observed on Proxmox VE 9.1. Several simulators run beside each other in one process;
//! each has nodes, storages and containers whose guests really listen on addresses in 127.0.0.0/8.

mod api;
mod auth;
mod behind;
mod config;
mod control;
mod error;
mod fault;
mod fault_reply;
mod gate;
mod guest;
mod handle;
mod params;
mod reply;
mod request;
mod routes;
mod seen;
mod server;
mod sim;
mod tls;
mod world;

pub use behind::Foreign;
pub use config::{
    GuestPorts, NodeConfig, SimulatorConfig, Speaks, StorageConfig, StorageKind, TaskTimes,
};
pub use error::Error;
pub use fault::{Fault, FaultRule, Faults, RuleState, Times, When};
pub use handle::{Simulator, SimulatorHandle};
pub use routes::effects;
pub use seen::{RequestSeen, RequestsSeen};
pub use tls::Presented;
pub use world::journal::Effect;
pub use world::ledger::{Ledger, LedgerContainer, LedgerNode, LedgerTask, LedgerVolume};
