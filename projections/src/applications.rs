//! The read model of applications: one row each, which is the contract's `App`.

mod fold;
pub(crate) mod past;
mod query;

pub use fold::Applications;
pub use past::after;
pub use query::{Filter, Promised};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::Moment;

/// An application as the API shows it; `url`, `iframe_url` and the metrics are the server's to fill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// `{catalog_id}-{8 hex}`.
    pub id: String,
    /// The catalog entry that it was made from.
    pub catalog_id: String,
    /// The same as `catalog_id`.
    pub catalog_app_id: String,
    /// Version of the entry when it was deployed.
    pub catalog_version: String,
    /// The node that its container is on.
    pub node: String,
    /// The same as `node`.
    pub node_name: String,
    /// The container's number; null when it has none any more.
    pub lxc_id: Option<u32>,
    /// The same as `lxc_id`.
    pub vmid: Option<u32>,
    /// What a person reads.
    pub name: String,
    /// Its host name; nobody else has it.
    pub hostname: String,
    /// `deploying`, `cloning`, `adopting`, `running`, `stopped`, `updating`, `removing` or `error`.
    pub status: String,
    /// What a person opens.
    pub url: Option<String>,
    /// The same page, for the web client's embedded view.
    pub iframe_url: Option<String>,
    /// The port that it is published on; null when it holds none.
    pub public_port: Option<u16>,
    /// The port of the embedded view; null when it holds none.
    pub internal_port: Option<u16>,
    /// The registered host that its container is on.
    pub host_id: i64,
    /// The owner's user id.
    pub owner: i64,
    /// Parameters as sent; a value that is not declared plain reads `[secret]`.
    #[schema(value_type = Object)]
    pub config: BTreeMap<String, String>,
    /// Every value that is not declared plain reads `[secret]`.
    #[schema(value_type = Object)]
    pub environment: BTreeMap<String, String>,
    /// The container's port to the published one.
    #[schema(value_type = Object)]
    pub ports: BTreeMap<String, u16>,
    /// Paths that hold state.
    pub volumes: Vec<String>,
    /// Address of a picture.
    pub icon: String,
    /// The catalog entry's category.
    pub category: String,
    /// The catalog entry's description.
    pub description: String,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub created_at: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub updated_at: Moment,
    /// Share of the given cores, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
    /// How many events it has; the entity tag.
    pub version: u64,
    /// The operation that runs on it; filled from the operations' read model by the same query.
    pub operation: Option<AppOperation>,
    /// Why it is in error, or why its last operation failed.
    pub problem: Option<String>,
    /// `deployed`, `cloned` or `adopted`; an adopted one keeps its own ports, which are not published.
    pub origin: String,
    /// The container's address, when known.
    pub address: Option<String>,
    /// Where the published port leads to; null when it serves nothing.
    pub endpoint: Option<AppEndpoint>,
    /// What its container is given.
    pub resources: AppResources,
}

/// The operation that runs on an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppOperation {
    /// Its id, for `/api/operations/{id}`.
    pub id: String,
    /// `deploy`, `delete`, `start`, `stop` or `restart`.
    pub kind: String,
    /// The step that was begun last; null before the first.
    pub step: Option<String>,
    /// 1 for the first attempt at the step; 0 before it.
    pub attempt: u32,
}

/// An application's first endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppEndpoint {
    /// Inside the container.
    pub port: u16,
    /// `http`, `https`, `tcp` or `udp`.
    pub protocol: String,
    /// Where its page starts.
    pub path: Option<String>,
}

/// What a container is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppResources {
    /// CPU cores.
    pub cores: u16,
    /// MiB.
    pub memory_mb: u32,
    /// GiB.
    pub disk_gb: u32,
    /// MiB.
    pub swap_mb: u32,
}
