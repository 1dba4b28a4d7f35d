//! The commands and all that they need, put together.

use std::sync::Arc;

use proximity_catalog::Library;
use proximity_commands::applications::{Applications, Limits};
use proximity_commands::clock::Clock;
use proximity_commands::clusters::{Freshness, LiveClusters};
use proximity_commands::directory::HostDirectory;
use proximity_commands::hosts::{Hosts, NodeWatch};
use proximity_commands::marker::Markers;
use proximity_commands::operations::Operations;
use proximity_commands::pools::{PoolRanges, Pools};
use proximity_commands::ports::{Connector, Hypervisors};
use proximity_commands::reconcile::Reconciler;
use proximity_commands::saga::SagaConfig;
use proximity_commands::schedules::{Patience, Schedules};
use proximity_commands::secrets::Secrets;
use proximity_eventstore::Store;
use proximity_proxmox::{Limits as PveLimits, PveConnector};

use crate::config::{Config, Range};

/// Everything that changes something.
pub struct Commands {
    pub applications: Arc<Applications>,
    pub schedules: Arc<Schedules>,
    pub operations: Operations,
    pub hosts: Hosts,
    pub watch: Arc<NodeWatch>,
    pub reconciler: Arc<Reconciler>,
    pub clusters: Arc<LiveClusters>,
    pub directory: Arc<HostDirectory>,
    pub secrets: Secrets,
    pub clock: Arc<dyn Clock>,
    pub saga: SagaConfig,
}

impl Commands {
    /// Over one store, with one connector to all hosts.
    pub fn new(
        config: &Config,
        store: &Store,
        secrets: Secrets,
        catalog: Arc<Library>,
        installation: &str,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let limits = PveLimits {
            concurrency: usize::try_from(config.proxmox_concurrency).unwrap_or(1),
            ..PveLimits::default()
        };
        let connector: Arc<dyn Connector> = Arc::new(PveConnector::new(limits));
        let directory = Arc::new(HostDirectory::new(store.clone(), secrets.clone(), connector));
        let hypervisors: Arc<dyn Hypervisors> = directory.clone();
        let clusters =
            Arc::new(LiveClusters::new(store.clone(), hypervisors.clone(), Freshness::default()));
        let markers = Markers::of(installation.to_owned(), secrets.ring().clone());
        let saga =
            SagaConfig { vmids: (config.vmids.first, config.vmids.last), ..SagaConfig::default() };
        let applications = Arc::new(Applications {
            store: store.clone(),
            catalog,
            clusters: clusters.clone(),
            hypervisors,
            markers: markers.clone(),
            secrets: secrets.clone(),
            pools: Pools::new(store.clone(), ranges(config)),
            clock: clock.clone(),
            limits: Limits::default(),
        });
        let schedules = Arc::new(Schedules {
            applications: applications.clone(),
            clock: clock.clone(),
            patience: Patience::default(),
        });
        let operations =
            Operations { store: store.clone(), clock: clock.clone(), quarantine: saga.quarantine };
        let hosts = Hosts {
            store: store.clone(),
            secrets: secrets.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
        };
        let watch = Arc::new(NodeWatch::new(store.clone(), directory.clone(), clock.clone()));
        let reconciler = Arc::new(Reconciler::new(
            store.clone(),
            applications.hypervisors.clone(),
            markers,
            clock.clone(),
            Limits::default().other,
        ));
        Self {
            applications,
            schedules,
            operations,
            hosts,
            watch,
            reconciler,
            clusters,
            directory,
            secrets,
            clock,
            saga,
        }
    }
}

fn ranges(config: &Config) -> PoolRanges {
    // The settings' parser keeps ports below 65,536.
    let ports = |range: Range| {
        let port = |number| u16::try_from(number).unwrap_or(u16::MAX);
        port(range.first)..=port(range.last)
    };
    PoolRanges {
        public_ports: ports(config.public_ports),
        internal_ports: ports(config.internal_ports),
        vmids: config.vmids.first..=config.vmids.last,
    }
}
