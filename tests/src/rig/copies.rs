//! What a clone and an adoption append, for tests without an HTTP server.

use std::collections::BTreeMap;

use proximity_commands::Actor;
use proximity_commands::dispatch::Unit;
use proximity_domain::application::{Application, Command as App, Origin, Requested};
use proximity_domain::lease::{Command as LeaseCommand, Holder, Lease};
use proximity_domain::plan::{
    AdoptPlan, ClonePlan, CloneWay, GuestRef, Health, Holdings, Kind, Plan, Probe,
};
use proximity_domain::settings::default_resources;
use proximity_domain::{
    AddressMode, ApplicationId, NetworkSettings, NetworkSettingsInput, OperationId, UserId,
};
use uuid::Uuid;

use super::{CLUSTER, HOST, Rig};

/// The address that copies are given.
pub const ADDRESS: &str = "10.0.0.50";

/// Settings that lease addresses.
pub fn leased_addresses() -> NetworkSettings {
    NetworkSettings::parse(&NetworkSettingsInput {
        default_subnet: "10.0.0.0/24".to_owned(),
        default_gateway: "10.0.0.1".to_owned(),
        default_dns_primary: "8.8.8.8".to_owned(),
        default_dns_secondary: None,
        default_bridge: "vmbr0".to_owned(),
        address_mode: AddressMode::Static,
    })
    .unwrap()
}

/// The name of the snapshot that an operation makes.
pub fn snapshot_of(operation: OperationId) -> String {
    format!("px{}", operation.0.simple())
}

impl Rig {
    /// Appends what a clone appends: the copy, its leases, the source's reservation, the operation.
    pub async fn clone_of(
        &self,
        source: &ApplicationId,
        name: &str,
        vmid: i64,
        port: i64,
        way: impl FnOnce(OperationId) -> CloneWay,
    ) -> (ApplicationId, OperationId) {
        let application = ApplicationId::new("alpine", rand::random()).unwrap();
        let operation = OperationId(Uuid::new_v4());
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.clone"));
        let state = unit.load::<Application>(source.as_str()).await.unwrap();
        let live = state.live().expect("the source is live").requested.clone();
        let begin = App::BeginOperation { operation, kind: Kind::Clone };
        assert_eq!(unit.apply::<Application>(source.as_str(), begin).await.unwrap(), 1);
        let guest = GuestRef { vmid: vmid.try_into().unwrap(), ..live.guest.clone() };
        let holdings = Holdings {
            hostname: name.parse().unwrap(),
            public_port: Some(port.try_into().unwrap()),
            internal_port: Some((port + 1_000).try_into().unwrap()),
            address: Some(ADDRESS.parse().unwrap()),
        };
        let plan = Plan::Clone(Box::new(ClonePlan {
            agreed: false,
            source: source.clone(),
            source_guest: live.guest.clone(),
            guest: guest.clone(),
            holdings: holdings.clone(),
            way: way(operation),
            network: leased_addresses(),
            health: live.health.clone(),
        }));
        let origin = Origin::Cloned { from: source.clone() };
        let requested = Requested { operation, guest, holdings, origin, ..live };
        self.make(&mut unit, &application, requested, plan).await;
        unit.commit().await.unwrap();
        (application, operation)
    }

    /// Appends what an adoption of container `vmid` of the first node appends.
    pub async fn adopt(&self, vmid: i64, name: &str) -> (ApplicationId, OperationId) {
        let application = ApplicationId::new("custom", rand::random()).unwrap();
        let operation = OperationId(Uuid::new_v4());
        let guest = GuestRef {
            host: HOST,
            cluster: CLUSTER.parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: vmid.try_into().unwrap(),
        };
        let hypervisor = self.env.hypervisors.of(HOST).await.unwrap();
        let config = hypervisor.config(&guest.node, guest.vmid).await.unwrap().unwrap();
        let holdings = Holdings {
            hostname: name.parse().unwrap(),
            public_port: None,
            internal_port: None,
            address: None,
        };
        let plan = Plan::Adopt(Box::new(AdoptPlan {
            guest: guest.clone(),
            holdings: holdings.clone(),
            digest: config.digest,
            was_running: true,
        }));
        let requested = Requested {
            owner: UserId(1),
            operation,
            catalog_id: "custom".to_owned(),
            catalog_version: String::new(),
            name: name.to_owned(),
            guest,
            holdings,
            resources: default_resources(),
            environment: BTreeMap::new(),
            config: BTreeMap::new(),
            endpoint: None,
            health: Health { probe: Probe::Running, within_s: 1 },
            icon: String::new(),
            category: String::new(),
            description: String::new(),
            origin: Origin::Adopted,
        };
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.adopt"));
        self.make(&mut unit, &application, requested, plan).await;
        unit.commit().await.unwrap();
        (application, operation)
    }

    /// The application, its leases and its operation.
    async fn make(
        &self,
        unit: &mut Unit<'_>,
        application: &ApplicationId,
        requested: Requested,
        plan: Plan,
    ) {
        let holder = Holder::Application(application.clone());
        let mut leases = requested.holdings.leases(&requested.guest.cluster);
        leases.push(requested.guest.vmid_lease());
        for key in leases {
            let acquire = LeaseCommand::Acquire { holder: holder.clone() };
            unit.apply::<Lease>(&key.to_string(), acquire).await.unwrap();
        }
        let operation = requested.operation;
        unit.apply::<Application>(application.as_str(), App::Request(Box::new(requested)))
            .await
            .unwrap();
        self.plan(unit, application, operation, plan).await;
    }
}
