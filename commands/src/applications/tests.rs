//! Deployments and actions against a real log, with a cluster that is only described.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proximity_catalog::{Library, Origin};
use proximity_domain::application::{Application, Command as App};
use proximity_domain::host::{Auth, Command as HostCommand, Connection, Host};
use proximity_domain::lease::{Holder, Lease};
use proximity_domain::operation::{Command as Op, Direction, Operation};
use proximity_domain::plan::Plan;
use proximity_domain::{ApplicationId, EnvValue, HostId, OperationId, SecretId};
use proximity_eventstore::{Options, Row, Store, Value, tables};
use serde_json::json;
use tempfile::TempDir;

use super::{Action, Applications, DeployRequest, Limits};
use crate::actor::Actor;
use crate::clock::SystemClock;
use crate::dispatch::{Judge, Unit, load};
use crate::error::Error;
use crate::keys::{MasterKeys, Purpose};
use crate::marker::Markers;
use crate::once::OnceKey;
use crate::operations::Operations;
use crate::policy::{Admin, Owned};
use crate::pools::{PoolRanges, Pools};
use crate::ports::{
    ClusterView, Clusters, Hypervisor, HypervisorError, Hypervisors, NodeView, SecretReader as _,
    Storage, Version,
};
use crate::secret_uses::By;
use crate::secrets::Secrets;
use crate::testing::{a_user, an_admin};

struct Described(Vec<ClusterView>);

#[async_trait]
impl Clusters for Described {
    async fn seen(&self) -> Result<Arc<Vec<ClusterView>>, Error> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// Deployments and actions do not ask Proxmox: operations do.
struct Away;

#[async_trait]
impl Hypervisors for Away {
    async fn of(&self, _host: HostId) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        let reason = "nobody answers here".to_owned();
        Err(HypervisorError::Retryable { call: "test", reason: reason.into() })
    }
}

struct Site {
    _dir: TempDir,
    store: Store,
    applications: Arc<Applications>,
}

fn cluster() -> ClusterView {
    let storage = Storage {
        name: "local".to_owned(),
        kind: "dir".to_owned(),
        content: vec!["vztmpl".to_owned(), "rootdir".to_owned()],
        active: true,
        shared: false,
        available: Some(1 << 40),
        total: None,
        used: None,
    };
    ClusterView {
        host: HostId(1),
        cluster: "lab".parse().unwrap(),
        is_default: true,
        version: Some(Version { text: "9.1.7".to_owned(), major: 9, minor: 1 }),
        nodes: vec![NodeView {
            name: "pve1".parse().unwrap(),
            online: true,
            memory_free: Some(1 << 36),
            storages: vec![storage],
        }],
        guests: BTreeSet::new(),
    }
}

async fn site(ranges: PoolRanges) -> Site {
    let dir = TempDir::new().unwrap();
    let store = Store::open(Options::sqlite(dir.path())).await.unwrap();
    let connection = Connection {
        name: "rack".into(),
        address: "192.0.2.10".into(),
        port: "8006".parse().unwrap(),
        user: "root@pam".into(),
        auth: Auth::Password,
        credential: SecretId(uuid::Uuid::new_v4()),
        verify_ssl: true,
        fingerprint: None,
        ssh_port: "22".parse().unwrap(),
    };
    let register =
        HostCommand::Register { connection, cluster: "lab".parse().unwrap(), is_default: true };
    apply::<Host>(&store, "1", register).await;
    let keys = Arc::new(MasterKeys::generate().unwrap());
    let secrets = Secrets::new(store.clone(), keys.clone()).await.unwrap();
    let applications = Applications {
        store: store.clone(),
        catalog: Arc::new(Library::open(Origin::Embedded).unwrap()),
        clusters: Arc::new(Described(vec![cluster()])),
        hypervisors: Arc::new(Away),
        markers: Markers::new("test".to_owned(), keys.derive_all(Purpose::GuestMarker)),
        secrets,
        pools: Pools::new(store.clone(), ranges),
        clock: SystemClock::shared(),
        limits: Limits::default(),
    };
    Site { _dir: dir, store, applications: Arc::new(applications) }
}

async fn apply<A: Judge>(store: &Store, id: &str, command: A::Command)
where
    A::Error: std::fmt::Debug,
{
    let mut unit = Unit::new(store, Actor::system("test").metadata("test.apply"));
    unit.apply::<A>(id, command).await.unwrap();
    unit.commit().await.unwrap();
}

fn alpine(hostname: &str) -> DeployRequest {
    DeployRequest {
        catalog_id: "alpine".to_owned(),
        hostname: hostname.to_owned(),
        ..DeployRequest::default()
    }
}

impl Site {
    async fn deploy(&self, hostname: &str) -> Result<(ApplicationId, OperationId), Error> {
        let done = self.applications.deploy(&a_user(7), &alpine(hostname), None).await?;
        Ok((done.value.application, done.value.operation.unwrap()))
    }

    /// Ends the deployment well, as the runner would.
    async fn deployed(&self, hostname: &str) -> ApplicationId {
        let (id, operation) = self.deploy(hostname).await.unwrap();
        let complete = App::CompleteDeployment { operation, address: None };
        apply::<Application>(&self.store, id.as_str(), complete).await;
        id
    }

    async fn act(&self, id: &ApplicationId, action: Action) -> Result<Option<OperationId>, Error> {
        let owned = Owned::prove(&self.store, &a_user(7), id.clone()).await?;
        let done = self.applications.act(&owned, action, false, None).await?;
        Ok(done.value.operation)
    }

    async fn types(&self) -> Vec<String> {
        let events = self.store.feed(0, 10_000).await.unwrap();
        events.into_iter().map(|event| event.event_type).collect()
    }
}

fn text(row: &Row, column: &str) -> String {
    match row.iter().find(|(name, _)| *name == column) {
        Some((_, Value::Text(text))) => text.clone(),
        other => panic!("{column} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_one_append_with_everything_that_it_holds() {
    let site = site(PoolRanges::default()).await;
    let before = site.store.head().await.unwrap();
    let (id, operation) = site.deploy("Web-01.").await.unwrap();
    let events = site.store.feed(before, 100).await.unwrap();
    let mut types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    types.sort_unstable();
    assert_eq!(
        types,
        [
            "application.requested",
            "lease.acquired",
            "lease.acquired",
            "lease.acquired",
            "lease.acquired",
            "operation.planned"
        ]
    );
    assert!(events.iter().all(|event| event.metadata == events[0].metadata));
    let (application, _) = load::<Application>(&site.store, id.as_str()).await.unwrap();
    let live = application.live().unwrap();
    assert_eq!(live.requested.holdings.hostname.as_str(), "web-01");
    let guest = &live.requested.guest;
    let mut leases = live.requested.holdings.leases(&guest.cluster);
    leases.push(guest.vmid_lease());
    for key in leases {
        let (lease, _) = load::<Lease>(&site.store, &key.to_string()).await.unwrap();
        assert_eq!(lease.holder(), Some(&Holder::Application(id.clone())), "{key}");
    }
    let (planned, _) = load::<Operation>(&site.store, &operation.to_string()).await.unwrap();
    let progress = planned.progress().unwrap();
    let steps = ["ensure_template", "create_container", "start", "wait_healthy"];
    assert_eq!(progress.steps, steps);
    let Plan::Deploy(plan) = &progress.plan else { panic!("{:?}", progress.plan) };
    assert_eq!((&plan.guest, plan.template_storage.as_str()), (guest, "local"));
    let rows = site.store.rows(&tables::OWNERSHIP, Vec::new(), 10).await.unwrap();
    let owned: Vec<_> = rows.iter().map(|row| (text(row, "kind"), text(row, "id"))).collect();
    assert_eq!(
        owned,
        [
            ("application".to_owned(), id.to_string()),
            ("operation".to_owned(), operation.to_string())
        ]
    );
    assert!(rows.iter().all(|row| text(row, "owner") == "7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_is_one_name_in_any_spelling_and_taken_once() {
    let site = site(PoolRanges::default()).await;
    site.deploy("web").await.unwrap();
    for spelling in ["web", "WEB", "Web."] {
        assert_eq!(site.deploy(spelling).await.unwrap_err().code(), "hostname.taken");
    }
    for broken in ["", "-a", "a_b", "a.b", "web\n", "w\0", "wéb"] {
        assert_eq!(site.deploy(broken).await.unwrap_err().code(), "hostname.invalid", "{broken:?}");
    }
    let requested = site.types().await.iter().filter(|t| *t == "application.requested").count();
    assert_eq!(requested, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn audit_09_of_forty_racers_for_one_hostname_one_wins_and_holds_one_set_of_leases() {
    let site = Arc::new(site(PoolRanges::default()).await);
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let site = Arc::clone(&site);
        racers.spawn(async move { site.deploy("prize").await });
    }
    let results = racers.join_all().await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1);
    for refused in results.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code(), "hostname.taken");
    }
    let acquired = site.types().await.iter().filter(|t| *t == "lease.acquired").count();
    assert_eq!(acquired, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_more_deployments_than_ports_each_gets_a_port_of_its_own_or_a_clean_refusal() {
    let ports = PoolRanges { public_ports: 8100..=8119, ..PoolRanges::default() };
    let site = Arc::new(site(ports).await);
    let mut racers = tokio::task::JoinSet::new();
    for number in 0..30 {
        let site = Arc::clone(&site);
        racers.spawn(async move {
            let hostname = format!("host-{number}");
            // While the last ports are being given away the answer is "try again"; so it does.
            for _ in 0..200 {
                match site.deploy(&hostname).await {
                    Err(error) if error.code() == "pools.contended" => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    other => return other.map(drop).map_err(|error| error.code()),
                }
            }
            Err("never")
        });
    }
    let mut counted: BTreeMap<_, usize> = BTreeMap::new();
    for result in racers.join_all().await {
        *counted.entry(result).or_default() += 1;
    }
    assert_eq!(counted, BTreeMap::from([(Ok(()), 20), (Err("ports.exhausted"), 10)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_wrong_with_a_request_is_said_at_once() {
    let site = site(PoolRanges::default()).await;
    let before = site.store.head().await.unwrap();
    let ask = async |request: DeployRequest| {
        let refused = site.applications.deploy(&a_user(7), &request, None).await;
        match refused.unwrap_err() {
            Error::Invalid(fields) => {
                fields.into_iter().map(|f| (f.field, f.code)).collect::<Vec<_>>()
            }
            other => vec![("-".to_owned(), other.code())],
        }
    };
    let wrong = DeployRequest { catalog_id: "nothing".to_owned(), ..alpine("a b") };
    let said = ask(wrong).await;
    assert_eq!(
        said,
        [("hostname".to_owned(), "hostname.invalid"), ("catalog_id".to_owned(), "catalog.unknown")]
    );
    let node = |name: &str| DeployRequest { node: Some(name.to_owned()), ..alpine("a") };
    assert_eq!(ask(node("no node")).await, [("node".to_owned(), "node.invalid")]);
    assert_eq!(ask(node("pve9")).await, [("node".to_owned(), "node.unknown")]);
    let host = DeployRequest { host_id: Some(9), ..alpine("a") };
    assert_eq!(ask(host).await, [("host_id".to_owned(), "host.unknown")]);
    assert_eq!(site.store.head().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_value_is_sealed_in_the_same_append_and_stands_in_no_event() {
    let site = site(PoolRanges::default()).await;
    let canary = uuid::Uuid::new_v4().simple().to_string();
    let environment = json!({ "API_TOKEN": canary, "LEVEL": "info" });
    let request = DeployRequest {
        environment: environment.as_object().unwrap().clone(),
        ..alpine("secretive")
    };
    let done = site.applications.deploy(&a_user(7), &request, None).await.unwrap();
    let id = done.value.application;
    let (application, _) = load::<Application>(&site.store, id.as_str()).await.unwrap();
    let requested = &application.live().unwrap().requested;
    let EnvValue::Secret(secret) = requested.environment["API_TOKEN"] else { panic!("plain") };
    let rows = site.store.rows(&tables::SECRETS, Vec::new(), 10).await.unwrap();
    let stored: BTreeSet<_> = rows.iter().map(|row| text(row, "id")).collect();
    assert!(stored.contains(&secret.to_string()));
    assert!(rows.iter().all(|row| text(row, "record_id") == id.as_str()));
    let opened = site.applications.secrets.open(secret, &id, &By::program()).await.unwrap();
    assert_eq!(opened.expose(), canary);
    for event in site.store.feed(0, 100).await.unwrap() {
        assert!(!event.payload.contains(&canary) && !event.metadata.contains(&canary));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_deploys_once_although_its_hostname_is_taken_by_then() {
    let site = site(PoolRanges::default()).await;
    let key = |fingerprint: &str| OnceKey {
        key: "POST /api/apps k1".to_owned(),
        fingerprint: fingerprint.to_owned(),
    };
    let deploy = async |key: OnceKey| {
        site.applications.deploy(&a_user(7), &alpine("once"), Some(&key)).await
    };
    let first = deploy(key("f")).await.unwrap();
    let head = site.store.head().await.unwrap();
    let again = deploy(key("f")).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.value, again.value);
    assert_eq!(deploy(key("other")).await.unwrap_err().code(), "idempotency_key.reused");
    assert_eq!(site.store.head().await.unwrap(), head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_16_an_action_is_an_operation_and_the_only_one_while_it_runs() {
    let site = site(PoolRanges::default()).await;
    let (id, _) = site.deploy("app").await.unwrap();
    let busy = site.act(&id, Action::Delete).await.unwrap_err();
    assert_eq!(busy.code(), "application.busy");
    let id = site.deployed("other").await;
    // Nobody answers here who could say that it runs already.
    let start = site.act(&id, Action::Start).await.unwrap().unwrap();
    let started = App::FinishStart { operation: start, address: None };
    apply::<Application>(&site.store, id.as_str(), started).await;
    let stop = site.act(&id, Action::Stop).await.unwrap().unwrap();
    assert_eq!(site.act(&id, Action::Restart).await.unwrap_err().code(), "application.busy");
    apply::<Application>(&site.store, id.as_str(), App::FinishStop { operation: stop }).await;
    let restart = site.act(&id, Action::Restart).await.unwrap_err();
    assert_eq!(restart.code(), "application.not_running");
    let unknown = "alpine-00000000".parse().unwrap();
    assert_eq!(site.act(&unknown, Action::Stop).await.unwrap_err().code(), "not_found");
    let delete = site.act(&id, Action::Delete).await.unwrap().unwrap();
    let (operation, _) = load::<Operation>(&site.store, &delete.to_string()).await.unwrap();
    let Plan::Delete(plan) = &operation.progress().unwrap().plan else { panic!("no deletion") };
    assert!(plan.guest.is_some() && plan.holdings.is_some() && !plan.was_running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_application_can_only_be_deleted() {
    let site = site(PoolRanges::default()).await;
    let (id, operation) = site.deploy("app").await.unwrap();
    let fail = App::FailDeployment { operation, problem: "no template".to_owned() };
    apply::<Application>(&site.store, id.as_str(), fail).await;
    for action in [Action::Start, Action::Stop, Action::Restart] {
        let refused = site.act(&id, action).await.unwrap_err();
        assert_eq!(refused.code(), "application.only_deletable");
    }
    let delete = site.act(&id, Action::Delete).await.unwrap().unwrap();
    let (operation, _) = load::<Operation>(&site.store, &delete.to_string()).await.unwrap();
    assert!(operation.progress().unwrap().steps.is_empty(), "nothing is left to undo");
}

/// A deployment that got stuck on its way back.
async fn stuck(site: &Site, hostname: &str) -> (ApplicationId, OperationId) {
    let (id, operation) = site.deploy(hostname).await.unwrap();
    let name = operation.to_string();
    let step = "ensure_template".to_owned();
    for command in [
        Op::IntendStep { step: step.clone(), direction: Direction::Act, stood: None, site: None },
        Op::Unwind { reason: "no template".to_owned(), past_pivot: false },
        Op::GetStuck {
            step,
            direction: Direction::Undo,
            reason: "locked".to_owned(),
            instructions: "unlock it".to_owned(),
        },
    ] {
        apply::<Operation>(&site.store, &name, command).await;
    }
    let mark = App::MarkStuck { operation, problem: "locked".to_owned() };
    apply::<Application>(&site.store, id.as_str(), mark).await;
    (id, operation)
}

fn admin() -> Admin {
    Admin::prove(&an_admin(1)).unwrap()
}

fn operations(site: &Site) -> Operations {
    Operations {
        store: site.store.clone(),
        clock: SystemClock::shared(),
        quarantine: Duration::from_secs(900),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_operation_can_be_resumed_and_one_that_is_not_cannot() {
    let site = site(PoolRanges::default()).await;
    let operations = operations(&site);
    let (_, running) = site.deploy("running").await.unwrap();
    let resume = async |id| operations.resume(&admin(), id, "mended".to_owned()).await;
    assert_eq!(resume(running).await.unwrap_err().code(), "operation.not_stuck");
    let (_, stuck) = stuck(&site, "stuck").await;
    resume(stuck).await.unwrap();
    assert_eq!(resume(stuck).await.unwrap_err().code(), "operation.not_stuck");
    let unknown = OperationId(uuid::Uuid::new_v4());
    assert_eq!(resume(unknown).await.unwrap_err().code(), "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_deployment_gives_all_back_but_keeps_its_number_in_quarantine() {
    let site = site(PoolRanges::default()).await;
    let (id, operation) = stuck(&site, "given-up").await;
    let (application, _) = load::<Application>(&site.store, id.as_str()).await.unwrap();
    let requested = application.live().unwrap().requested.clone();
    let abandon = operations(&site);
    abandon.abandon(&admin(), operation, "the node burnt".to_owned()).await.unwrap();
    for key in requested.holdings.leases(&requested.guest.cluster) {
        let (lease, _) = load::<Lease>(&site.store, &key.to_string()).await.unwrap();
        assert_eq!(lease, Lease::Free, "{key}");
    }
    let vmid = requested.guest.vmid_lease().to_string();
    let (lease, _) = load::<Lease>(&site.store, &vmid).await.unwrap();
    assert!(matches!(lease, Lease::Quarantined { .. }), "{lease:?}");
    let (application, _) = load::<Application>(&site.store, id.as_str()).await.unwrap();
    assert!(matches!(application, Application::Failed(_)), "{application:?}");
    site.deploy("given-up").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_is_noted_once_and_refused_when_all_is_over() {
    let site = site(PoolRanges::default()).await;
    let operations = operations(&site);
    let (_, operation) = site.deploy("app").await.unwrap();
    let cancel = async |id| {
        let owned = Owned::prove(&site.store, &a_user(7), id).await?;
        operations.cancel(&owned.into(), "changed my mind".to_owned()).await
    };
    cancel(operation).await.unwrap();
    cancel(operation).await.unwrap();
    let noted = site.types().await.iter().filter(|t| *t == "operation.cancel_requested").count();
    assert_eq!(noted, 1);
    let (_, gone) = stuck(&site, "gone").await;
    operations.abandon(&admin(), gone, "gone".to_owned()).await.unwrap();
    assert_eq!(cancel(gone).await.unwrap_err().code(), "operation.ended");
}
