//! The defaults of deployments: resources and network.

use proximity_commands::policy::Admin;
use proximity_commands::settings;
use proximity_domain::settings::ResourceDefaultsInput;
use proximity_domain::{AddressMode, NetworkSettings, NetworkSettingsInput, Resources};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// What a container gets when nobody asks for anything else.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ResourceSettings {
    /// 1 to 128.
    #[schema(example = 2)]
    pub default_cpu_cores: i64,
    /// MiB, 256 to 524288.
    #[schema(example = 2048)]
    pub default_memory_mb: i64,
    /// GiB, 1 to 10240.
    #[schema(example = 20)]
    pub default_disk_gb: i64,
    /// MiB, 0 to 32768.
    #[schema(example = 512)]
    pub default_swap_mb: i64,
    /// RFC 3339; null while nobody has changed them.
    #[serde(default)]
    #[schema(read_only)]
    pub updated_at: Option<String>,
}

/// The network that containers join.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct NetworkDefaults {
    /// In CIDR notation.
    #[schema(example = "10.0.0.0/24")]
    pub default_subnet: String,
    /// A host address inside the subnet.
    #[schema(example = "10.0.0.1")]
    pub default_gateway: String,
    /// An IP address.
    #[schema(example = "8.8.8.8")]
    pub default_dns_primary: String,
    /// An IP address; may be left out.
    #[serde(default)]
    pub default_dns_secondary: Option<String>,
    /// A bridge of the Proxmox nodes.
    #[schema(example = "vmbr0")]
    pub default_bridge: String,
    /// `dhcp` (default) or `static`: an address of the subnet is leased with each deployment.
    #[serde(default = "dhcp")]
    #[schema(value_type = String, example = "dhcp")]
    pub address_mode: AddressMode,
    /// RFC 3339; null while nobody has changed them.
    #[serde(default)]
    #[schema(read_only)]
    pub updated_at: Option<String>,
}

fn dhcp() -> AddressMode {
    AddressMode::Dhcp
}

/// When a settings stream was last changed.
async fn changed(call: &Call, stream: &str) -> Result<Option<String>, Problem> {
    let events =
        call.app.store.load_stream("settings", stream).await.map_err(crate::app::unavailable)?;
    Ok(events.last().map(|event| crate::moment::rfc3339(event.recorded_at)))
}

async fn resources_body(call: &Call, resources: Resources) -> Result<Reply, Problem> {
    let shown = ResourceDefaultsInput::from(resources);
    Reply::json(&ResourceSettings {
        default_cpu_cores: shown.default_cpu_cores,
        default_memory_mb: shown.default_memory_mb,
        default_disk_gb: shown.default_disk_gb,
        default_swap_mb: shown.default_swap_mb,
        updated_at: changed(call, proximity_domain::settings::RESOURCES).await?,
    })
}

async fn network_body(call: &Call, network: NetworkSettings) -> Result<Reply, Problem> {
    let shown = NetworkSettingsInput::from(network);
    Reply::json(&NetworkDefaults {
        default_subnet: shown.default_subnet,
        default_gateway: shown.default_gateway,
        default_dns_primary: shown.default_dns_primary,
        default_dns_secondary: shown.default_dns_secondary,
        default_bridge: shown.default_bridge,
        address_mode: shown.address_mode,
        updated_at: changed(call, proximity_domain::settings::NETWORK).await?,
    })
}

/// The resource defaults in force.
#[utoipa::path(get, path = "/api/core/settings/resources", tag = "core", responses((status = 200, description = "In force", body = ResourceSettings)))]
pub async fn resources(call: Call) -> Result<Reply, Problem> {
    let now = settings::resources(&call.app.store).await?;
    Ok(resources_body(&call, now).await?.tagged())
}

/// Changes the resource defaults; deployments from now on use them.
#[utoipa::path(post, path = "/api/core/settings/resources", tag = "core", request_body = ResourceSettings, responses((status = 200, description = "In force from now on", body = ResourceSettings)))]
pub async fn change_resources(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let body: ResourceSettings = call.json()?;
    let input = ResourceDefaultsInput {
        default_cpu_cores: body.default_cpu_cores,
        default_memory_mb: body.default_memory_mb,
        default_disk_gb: body.default_disk_gb,
        default_swap_mb: body.default_swap_mb,
    };
    let before = async || resources_body(&call, settings::resources(&call.app.store).await?).await;
    call.unchanged_since(before).await?;
    let (now, position) = settings::change_resources(&call.app.store, &admin, &input).await?;
    Ok(resources_body(&call, now).await?.at(position))
}

/// The network defaults in force.
#[utoipa::path(get, path = "/api/core/settings/network", tag = "core", responses((status = 200, description = "In force", body = NetworkDefaults)))]
pub async fn network(call: Call) -> Result<Reply, Problem> {
    let now = settings::network(&call.app.store).await?;
    Ok(network_body(&call, now).await?.tagged())
}

/// Changes the network defaults; deployments from now on use them.
#[utoipa::path(post, path = "/api/core/settings/network", tag = "core", request_body = NetworkDefaults, responses((status = 200, description = "In force from now on", body = NetworkDefaults)))]
pub async fn change_network(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let body: NetworkDefaults = call.json()?;
    let input = NetworkSettingsInput {
        default_subnet: body.default_subnet,
        default_gateway: body.default_gateway,
        default_dns_primary: body.default_dns_primary,
        default_dns_secondary: body.default_dns_secondary,
        default_bridge: body.default_bridge,
        address_mode: body.address_mode,
    };
    let before = async || network_body(&call, settings::network(&call.app.store).await?).await;
    call.unchanged_since(before).await?;
    let (now, position) = settings::change_network(&call.app.store, &admin, &input).await?;
    Ok(network_body(&call, now).await?.at(position))
}
