//! A rig: the saga engine on a real store, with the real client, against the simulator; no HTTP server.

mod copies;
mod people;

pub use copies::{ADDRESS, leased_addresses, snapshot_of};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proximity_commands::clock::SystemClock;
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::keys::{MasterKeys, Purpose};
use proximity_commands::marker::Markers;
use proximity_commands::ports::{
    ConnectionSpec, Connector, Credential, Hypervisor, HypervisorError, Hypervisors, Prober,
    SecretReader, Trust,
};
use proximity_commands::saga::{Env, Hooks, Runner, RunnerHandle, SagaConfig, step_names};
use proximity_commands::secret_uses::By;
use proximity_commands::{Actor, Error, Secret};
use proximity_domain::application::{Application, Command as App, Origin, Requested};
use proximity_domain::host::{Auth, Command as HostCommand, Connection, Host};
use proximity_domain::lease::{Command as LeaseCommand, Holder, Lease};
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::plan::{
    DeletePlan, DeployPlan, GuestRef, Health, Holdings, Kind, Plan, PowerPlan, Probe, Source,
};
use proximity_domain::settings::{default_network, default_resources};
use proximity_domain::{ApplicationId, HostId, OperationId, SecretId, UserId};
use proximity_eventstore::{Options, Recorded, Store};
use proximity_proxmox::{Limits, PveConnector};
use proximity_simulator::{GuestPorts, NodeConfig, Simulator, SimulatorConfig, SimulatorHandle};
use uuid::Uuid;

/// The cluster's name.
pub const CLUSTER: &str = "lab";
/// The one registered host.
pub const HOST: HostId = HostId(1);

/// Everything that operations run on.
pub struct Rig {
    pub simulator: SimulatorHandle,
    pub store: Store,
    pub env: Env,
    /// How long an operation may take before it is taken back.
    pub patience: Duration,
}

struct OneHost(Arc<dyn Hypervisor>);

#[async_trait]
impl Hypervisors for OneHost {
    async fn of(&self, _host: HostId) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        Ok(Arc::clone(&self.0))
    }
}

struct NoSecrets;

#[async_trait]
impl SecretReader for NoSecrets {
    async fn open(
        &self,
        id: SecretId,
        _application: &ApplicationId,
        _by: &By,
    ) -> Result<Secret, Error> {
        Err(Error::internal("the rig keeps no secrets", id.to_string()))
    }
}

struct Knock;

#[async_trait]
impl Prober for Knock {
    async fn http(&self, at: SocketAddr, path: &str) -> Result<u16, String> {
        let url = format!("http://{at}{path}");
        let answer =
            crate::http::plain().get(url).send().await.map_err(|error| error.to_string())?;
        Ok(answer.status().as_u16())
    }

    async fn tcp(&self, at: SocketAddr) -> Result<(), String> {
        tokio::net::TcpStream::connect(at).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Limits under which a fault that lasts is given up within a second or two.
pub fn quick() -> SagaConfig {
    SagaConfig {
        act_attempts: 5,
        undo_attempts: 5,
        backoff: Duration::from_millis(4),
        backoff_cap: Duration::from_millis(40),
        poll: Duration::from_millis(5),
        task_patience: Duration::from_millis(400),
        disks_patience: Duration::from_millis(400),
        shutdown_s: 1,
        address_patience: Duration::from_secs(2),
        sweep: Duration::from_millis(50),
        ..SagaConfig::default()
    }
}

fn one_node() -> SimulatorConfig {
    SimulatorConfig {
        cluster: Some(CLUSTER.to_owned()),
        nodes: vec![NodeConfig::new("pve1")],
        ..SimulatorConfig::quick()
    }
}

impl Rig {
    /// A lone node, a store in `folder`, and the engine's parts; no runner yet.
    pub async fn new(folder: &Path, config: SagaConfig) -> Self {
        Self::with(folder, config, Duration::from_secs(2), Vec::new()).await
    }

    /// The same with a client that waits so long for an answer, and guests that serve these ports.
    pub async fn with(
        folder: &Path,
        config: SagaConfig,
        answer_within: Duration,
        guest_ports: Vec<GuestPorts>,
    ) -> Self {
        let host = SimulatorConfig { guest_ports, ..one_node() };
        Self::on(folder, config, answer_within, host, false).await
    }

    /// The same on a cluster of `nodes` nodes; containers are deployed on the first, `pve1`.
    pub async fn of_nodes(folder: &Path, config: SagaConfig, nodes: usize) -> Self {
        let nodes = (1..=nodes).map(|n| NodeConfig::new(&format!("pve{n}"))).collect();
        let host = SimulatorConfig { nodes, ..one_node() };
        Self::on(folder, config, Duration::from_secs(2), host, false).await
    }

    /// A lone node that is called with an API token, so that Proxmox tells which tasks are ours.
    pub async fn of_token(folder: &Path, config: SagaConfig) -> Self {
        Self::on(folder, config, Duration::from_secs(2), one_node(), true).await
    }

    async fn on(
        folder: &Path,
        config: SagaConfig,
        answer_within: Duration,
        host: SimulatorConfig,
        by_token: bool,
    ) -> Self {
        let simulator = Simulator::start(host).await.unwrap();
        let store = Store::open(Options::sqlite(folder)).await.unwrap();
        let limits = Limits {
            connect: Duration::from_secs(2),
            read: answer_within,
            write: answer_within,
            refusal_pause: Duration::ZERO,
            ..Limits::default()
        };
        let address = simulator.address();
        let credential = if by_token {
            let token = simulator.add_token("root@pam", "rig", false).unwrap();
            let (_, secret) = token.split_once('=').unwrap();
            Credential::Token { id: "rig".to_owned(), secret: Secret::new(secret.to_owned()) }
        } else {
            Credential::Password(Secret::new(simulator.root_password().to_owned()))
        };
        let hypervisor = PveConnector::new(limits)
            .connect(&ConnectionSpec {
                address: address.ip().to_string(),
                port: i64::from(address.port()).try_into().unwrap(),
                user: "root@pam".to_owned(),
                credential,
                trust: Trust::Pinned(simulator.fingerprint().parse().unwrap()),
            })
            .await
            .unwrap();
        let keys = MasterKeys::generate().unwrap().derive_all(Purpose::GuestMarker);
        let env = Env {
            store: store.clone(),
            hypervisors: Arc::new(OneHost(hypervisor)),
            markers: Markers::new(Uuid::new_v4().to_string(), keys),
            secrets: Arc::new(NoSecrets),
            prober: Arc::new(Knock),
            clock: SystemClock::shared(),
            config,
            runner: Uuid::new_v4(),
            hooks: None,
        };
        Self { simulator, store, env, patience: Duration::from_secs(60) }
    }

    /// Records the host, for what follows the log to know how its cluster is reached.
    pub async fn register(&self) {
        self.register_as(HOST).await;
    }

    /// The same under another id.
    pub async fn register_as(&self, host: HostId) {
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.register"));
        let register = HostCommand::Register {
            connection: Connection {
                name: CLUSTER.into(),
                address: "127.0.0.1".into(),
                port: "8006".parse().unwrap(),
                user: "root@pam".into(),
                auth: Auth::Password,
                credential: SecretId(Uuid::new_v4()),
                verify_ssl: false,
                fingerprint: None,
                ssh_port: "22".parse().unwrap(),
            },
            cluster: CLUSTER.parse().unwrap(),
            is_default: true,
        };
        unit.apply::<Host>(&host.to_string(), register).await.unwrap();
        unit.commit().await.unwrap();
    }

    /// Starts a runner, with or without a test's hooks.
    pub fn run(&self, hooks: Option<Arc<dyn Hooks>>) -> RunnerHandle {
        Runner::start(Env { hooks, ..self.env.clone() })
    }

    /// Appends what a deployment appends: the application, its leases, the operation.
    pub async fn deploy(&self, name: &str, vmid: i64, port: i64) -> (ApplicationId, OperationId) {
        let source = Source::Template { os: "alpine".to_owned(), version: "3.22".to_owned() };
        let health = Health { probe: Probe::Running, within_s: 1 };
        self.deploy_from(name, vmid, port, source, health).await
    }

    /// The same, made from this source and judged by this check.
    pub async fn deploy_from(
        &self,
        name: &str,
        vmid: i64,
        port: i64,
        source: Source,
        health: Health,
    ) -> (ApplicationId, OperationId) {
        let application = ApplicationId::new("alpine", rand::random()).unwrap();
        let operation = OperationId(Uuid::new_v4());
        let guest = GuestRef {
            host: HOST,
            cluster: CLUSTER.parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: vmid.try_into().unwrap(),
        };
        let holdings = Holdings {
            hostname: name.parse().unwrap(),
            public_port: Some(port.try_into().unwrap()),
            internal_port: Some((port + 1_000).try_into().unwrap()),
            address: None,
        };
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.deploy"));
        let requested = Requested {
            owner: UserId(1),
            operation,
            catalog_id: "alpine".to_owned(),
            catalog_version: "1".to_owned(),
            name: name.to_owned(),
            guest: guest.clone(),
            holdings: holdings.clone(),
            resources: default_resources(),
            environment: BTreeMap::new(),
            config: BTreeMap::new(),
            endpoint: None,
            health: health.clone(),
            icon: String::new(),
            category: String::new(),
            description: String::new(),
            origin: Origin::Deployed,
        };
        unit.apply::<Application>(application.as_str(), App::Request(Box::new(requested)))
            .await
            .unwrap();
        let holder = Holder::Application(application.clone());
        let mut leases = holdings.leases(&guest.cluster);
        leases.push(guest.vmid_lease());
        for key in leases {
            let acquire = LeaseCommand::Acquire { holder: holder.clone() };
            unit.apply::<Lease>(&key.to_string(), acquire).await.unwrap();
        }
        let plan = Plan::Deploy(Box::new(DeployPlan {
            agreed: false,
            guest,
            holdings,
            source,
            template_storage: "local".to_owned(),
            disk_storage: "local-btrfs".to_owned(),
            resources: default_resources(),
            network: default_network(),
            environment: BTreeMap::new(),
            unprivileged: true,
            features: None,
            health,
        }));
        self.plan(&mut unit, &application, operation, plan).await;
        unit.commit().await.unwrap();
        (application, operation)
    }

    /// Appends what a later operation on an application appends.
    pub async fn begin(&self, application: &ApplicationId, kind: Kind) -> OperationId {
        let operation = OperationId(Uuid::new_v4());
        let mut unit = Unit::new(&self.store, Actor::system("rig").metadata("rig.begin"));
        let state = unit.load::<Application>(application.as_str()).await.unwrap();
        let live = state.live().expect("the application is live").clone();
        let began = unit
            .apply::<Application>(application.as_str(), App::BeginOperation { operation, kind });
        assert_eq!(began.await.unwrap(), 1);
        let guest = live.requested.guest.clone();
        let power =
            PowerPlan { guest: guest.clone(), force: false, health: live.requested.health.clone() };
        let plan = match kind {
            Kind::Delete => Plan::Delete(DeletePlan {
                guest: Some(guest),
                holdings: Some(live.requested.holdings.clone()),
                was_running: live.running,
                adopted_by: (live.requested.origin == Origin::Adopted)
                    .then_some(live.requested.operation),
                replaced: false,
                detached: false,
            }),
            Kind::Start => Plan::Start(power),
            Kind::Stop => Plan::Stop(power),
            Kind::Restart => Plan::Restart(power),
            Kind::Deploy
            | Kind::Clone
            | Kind::Adopt
            | Kind::Backup
            | Kind::BackupDelete
            | Kind::Restore => {
                panic!("a {kind:?} is begun in a way of its own")
            }
        };
        self.plan(&mut unit, application, operation, plan).await;
        unit.commit().await.unwrap();
        operation
    }

    pub(crate) async fn plan(
        &self,
        unit: &mut Unit<'_>,
        application: &ApplicationId,
        operation: OperationId,
        plan: Plan,
    ) {
        let steps = step_names(&plan);
        let deadline = self.env.clock.now() + i64::try_from(self.patience.as_micros()).unwrap();
        let command = Op::Plan {
            application: application.clone(),
            owner: UserId(1),
            plan: Box::new(plan),
            steps,
            deadline,
        };
        unit.apply::<Operation>(&operation.to_string(), command).await.unwrap();
    }

    /// Waits until the operation has ended or is stuck: `done`, `undone`, `abandoned` or `stuck`.
    pub async fn ended(&self, operation: OperationId, within: Duration) -> &'static str {
        let deadline = Instant::now() + within;
        let mut head = self.store.watch_head();
        loop {
            let (state, _) = load::<Operation>(&self.store, &operation.to_string()).await.unwrap();
            match &state {
                Operation::Done => return "done",
                Operation::Undone => return "undone",
                Operation::Abandoned => return "abandoned",
                Operation::Active(progress)
                    if matches!(
                        progress.phase,
                        proximity_domain::operation::Phase::Stuck { .. }
                    ) =>
                {
                    return "stuck";
                }
                Operation::Active(_) | Operation::Absent => {}
            }
            if Instant::now() > deadline {
                panic!("operation {operation} goes on and on: {state:#?}");
            }
            // Moved or not, the state is looked at again: the pause only saves looks.
            let _moved = tokio::time::timeout(Duration::from_millis(100), head.changed()).await;
        }
    }

    /// Waits until a lease is as wanted.
    pub async fn until_lease(&self, key: &str, within: Duration, wanted: impl Fn(&Lease) -> bool) {
        let deadline = Instant::now() + within;
        let mut head = self.store.watch_head();
        loop {
            let (lease, _) = load::<Lease>(&self.store, key).await.unwrap();
            if wanted(&lease) {
                return;
            }
            assert!(Instant::now() < deadline, "{key} stays {lease:?}");
            let _moved = tokio::time::timeout(Duration::from_millis(100), head.changed()).await;
        }
    }

    /// The whole log.
    pub async fn events(&self) -> Vec<Recorded> {
        let mut events: Vec<Recorded> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.position);
            let page = self.store.feed(after, 5_000).await.unwrap();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    /// `cluster/vmid` of every container that exists.
    pub fn guests(&self) -> std::collections::BTreeSet<String> {
        let ledger = self.simulator.ledger();
        ledger.containers.iter().map(|guest| format!("{CLUSTER}/{}", guest.vmid)).collect()
    }
}
