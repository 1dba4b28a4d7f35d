//! The demonstration: a server and a simulated Proxmox VE in one process, ready to deploy.

mod seed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use proximity_catalog::{Catalog, Install, Origin, Protocol};
use proximity_simulator::{
    GuestPorts, NodeConfig, Simulator, SimulatorConfig, SimulatorHandle, Speaks,
};

use crate::app::App;
use crate::config::Config;
use crate::http::{Listening, serve};
use crate::stores;

pub use seed::{Login, generated_password};

/// A running demonstration.
pub struct Demo {
    pub app: Arc<App>,
    pub listening: Listening,
    pub simulator: SimulatorHandle,
    pub login: Login,
    pub data: PathBuf,
    /// Goes away with the demonstration; `None` when the data is kept.
    _temporary: Option<tempfile::TempDir>,
}

impl Demo {
    /// Starts everything. Without `keep` the data is in a temporary folder. What an installation on this
    /// machine has set is not touched: neither its database nor its master key nor its heads.
    pub async fn start(mut config: Config, keep: bool) -> anyhow::Result<Self> {
        config.master_key_file = None;
        config.heads_dir = None;
        if !keep {
            config.database_url = None;
        }
        let temporary = if keep {
            config.ensure_data()?;
            None
        } else {
            let owners_only = std::fs::Permissions::from_mode(0o700);
            let mut folder = tempfile::Builder::new();
            let folder = folder.prefix("proximity-demo-").permissions(owners_only).tempdir()?;
            config.data = folder.path().to_owned();
            Some(folder)
        };
        let data = config.data.clone();
        if !data.join(seed::LOGIN_FILE).exists() && is_used(&config).await? {
            anyhow::bail!(
                "there is an installation already that is no demonstration: name another --data, and \
                 no database"
            );
        }
        let simulator = Simulator::start(simulator_config(simulated_address(&data)))
            .await
            .context("the simulator cannot be started")?;
        // Nothing goes on before the host is known at its new address.
        let app = App::assemble(config).await?;
        let login = seed::seed(&app, &simulator, &data).await?;
        app.begin();
        let listening = serve(app.clone())?;
        Ok(Self { app, listening, simulator, login, data, _temporary: temporary })
    }

    /// `http://…` of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address)
    }

    /// Everything that exists in the simulator, as JSON.
    pub fn ledger_url(&self) -> String {
        format!("{}/ledger", self.simulator.control_url())
    }

    /// Ends the server in order, then the simulator.
    pub async fn stop(self) {
        self.app.stop(self.listening).await;
        self.simulator.shutdown().await;
    }
}

/// Whether anything was ever stored.
async fn is_used(config: &Config) -> anyhow::Result<bool> {
    let store = stores::open(config).await?;
    let head = store.head().await;
    store.close().await;
    Ok(head? > 0)
}

/// A kept demonstration asks for the address that its host was registered with.
fn simulated_address(data: &std::path::Path) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let kept = std::fs::read_to_string(data.join(seed::ADDRESS_FILE)).unwrap_or_default();
    let Ok(address) = kept.trim().parse::<SocketAddr>() else { return any };
    // Taken by somebody else meanwhile: the host is told its new address.
    if std::net::TcpListener::bind(address).is_ok() { address } else { any }
}

/// Three nodes, tasks that take a moment, and guests that listen where the catalog says.
pub fn simulator_config(listen: SocketAddr) -> SimulatorConfig {
    SimulatorConfig {
        listen,
        nodes: ["pve1", "pve2", "pve3"].map(NodeConfig::new).to_vec(),
        cluster: Some("demo".to_owned()),
        guest_ports: guest_ports(),
        ..SimulatorConfig::default()
    }
}

/// What guests of the built-in catalog listen on: endpoints and health checks, by image.
pub fn guest_ports() -> Vec<GuestPorts> {
    let Ok(catalog) = Catalog::load(&Origin::Embedded) else { return Vec::new() };
    let mut by_image: BTreeMap<String, BTreeMap<u16, Speaks>> = BTreeMap::new();
    for app in catalog.all() {
        let image = match &app.install {
            // The archive is named after the image: its last part, without tag or digest.
            Install::Oci { image, .. } => {
                let name = image.rsplit('/').next().unwrap_or(image);
                name.split([':', '@']).next().unwrap_or(name).to_owned()
            }
            Install::Template { os, version, .. } => format!("{os}-{version}"),
            Install::Compose {} => continue,
        };
        let ports = by_image.entry(image).or_default();
        for endpoint in &app.endpoints {
            let speaks = match endpoint.protocol {
                Protocol::Http => Speaks::Http,
                Protocol::Https | Protocol::Tcp | Protocol::Udp => Speaks::Tcp,
            };
            ports.insert(endpoint.port.get(), speaks);
        }
        for port in &app.ports {
            ports.entry(port.get()).or_insert(Speaks::Http);
        }
        if let Some(health) = &app.health {
            if let Some(check) = &health.http {
                ports.insert(check.port.get(), Speaks::Http);
            }
            if let Some(check) = &health.tcp {
                ports.entry(check.port.get()).or_insert(Speaks::Tcp);
            }
        }
    }
    by_image
        .into_iter()
        .filter(|(_, ports)| !ports.is_empty())
        .map(|(image_contains, ports)| GuestPorts {
            image_contains,
            ports: ports.into_iter().collect(),
        })
        .collect()
}
