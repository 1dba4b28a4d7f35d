//! A laboratory: a simulated cluster in the test's own process, and a server beside it with an admin.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use proximity_eventstore::{Options, Recorded, Row, Store, Value, tables};
use proximity_simulator::{NodeConfig, Simulator, SimulatorConfig, SimulatorHandle};
use serde_json::json;

use crate::checker::{self, Findings};
use crate::database::Kind;
use crate::http::Client;
use crate::judged;
use crate::process::{Server, Site};

/// The cluster's name in the simulator.
pub const CLUSTER: &str = "lab";

/// The simulator outlives every kill of the server, as a real cluster would.
pub struct Lab {
    pub site: Site,
    pub simulator: SimulatorHandle,
    pub admin: String,
    pub password: String,
    _folder: tempfile::TempDir,
}

/// A random password: no constant secret, in tests neither.
pub fn password() -> String {
    format!("{}-{}", uuid::Uuid::new_v4(), uuid::Uuid::new_v4())
}

impl Lab {
    /// A quick cluster of `nodes` nodes and an empty site with an admin on the store asked for.
    pub async fn new(kind: Kind, nodes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut site = Site::new(kind, &data(folder.path(), "a")).await;
        // Below the ports that the kernel gives to outgoing connections, which may be any of those.
        site.set("PROXIMITY_PORTS__PUBLIC", "20000-29999");
        site.set("PROXIMITY_PORTS__INTERNAL", "10000-19999");
        site.set("PROXIMITY_PUBLISH__ENABLED", "false");
        let simulator = Simulator::start(SimulatorConfig {
            cluster: Some(CLUSTER.to_owned()),
            nodes: (1..=nodes).map(|n| NodeConfig::new(&format!("pve{n}"))).collect(),
            guest_ports: proximity_server::demo::guest_ports(),
            ..SimulatorConfig::quick()
        })
        .await
        .unwrap();
        let password = password();
        let lab = Self { site, simulator, admin: "root".to_owned(), password, _folder: folder };
        if kind == Kind::Postgres {
            lab.site.run(&["migrate"]);
        }
        lab.add_admin();
        lab
    }

    fn add_admin(&self) {
        let mut child = self
            .site
            .command(&["user", "add", &self.admin, "--admin", "--password-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{}\n", self.password).as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success(), "user add failed");
    }

    /// A second server's place on the same database, once the first has made the master key.
    pub fn replica(&self, name: &str) -> Site {
        let data = data(self._folder.path(), name);
        // A copy keeps its mode: the key is for its owner only.
        std::fs::copy(self.site.data.join("master.key"), data.join("master.key")).unwrap();
        self.site.replica(&data)
    }

    /// Starts the server, logs the admin in and registers the cluster.
    pub async fn start(&self) -> (Server, Client) {
        let server = self.site.serve().await;
        let client = Client::login(&self.site.url(), &self.admin, &self.password).await;
        let address = url::Url::parse(&self.simulator.url()).unwrap();
        let answer = client
            .post(
                "/api/proxmox/hosts",
                json!({
                    "name": "lab",
                    "host": address.host_str().unwrap(),
                    "port": address.port().unwrap(),
                    "user": "root@pam",
                    "password": self.simulator.root_password(),
                    "verify_ssl": false,
                    "fingerprint": self.simulator.fingerprint(),
                    "is_default": true,
                }),
            )
            .await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        (server, client)
    }

    async fn store(&self) -> Store {
        let options = match self.site.database_url() {
            Some(url) => Options::postgres(url),
            None => Options::sqlite(&self.site.data),
        };
        Store::open_read_only(options).await.unwrap()
    }

    /// The whole log, read beside a server or without one.
    pub async fn events(&self) -> Vec<Recorded> {
        let store = self.store().await;
        let mut events = Vec::new();
        loop {
            let after = events.last().map_or(0, |event: &Recorded| event.position);
            let page = store.feed(after, 5_000).await.unwrap();
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        store.close().await;
        events
    }

    /// `cluster/vmid` of every container that exists.
    pub fn guests(&self) -> BTreeSet<String> {
        let ledger = self.simulator.ledger();
        ledger.containers.iter().map(|guest| format!("{CLUSTER}/{}", guest.vmid)).collect()
    }

    /// The application of every stored secret that has one.
    pub async fn secret_holders(&self) -> Vec<String> {
        let store = self.store().await;
        let filter = vec![("record_table", Value::Text("applications".to_owned()))];
        let rows = store.rows(&tables::SECRETS, filter, 10_000).await.unwrap();
        store.close().await;
        let holder = |row: Row| match row.into_iter().find(|(name, _)| *name == "record_id") {
            Some((_, Value::Text(id))) => id,
            other => panic!("a secret's record is {other:?}"),
        };
        rows.into_iter().map(holder).collect()
    }

    /// Checks the log against the ledger and the product's own laws, and that no secret outlives its application.
    pub async fn check(&self) -> Findings {
        // Before the log is read: what begins meanwhile is known then.
        let holders = self.secret_holders().await;
        let events = self.events().await;
        let mut found = checker::check(&events, &self.guests());
        found.anomalies.append(&mut judged::accusations(events).await);
        for holder in holders.into_iter().filter(|holder| !found.live.contains_key(holder)) {
            found
                .anomalies
                .push(format!("a secret of {holder}, which is not live, is still there"));
        }
        found
    }

    /// Waits until no operation is open (a stuck one is not).
    pub async fn settle(&self, client: &Client, within: Duration) {
        for state in ["planned", "running", "unwinding"] {
            let path = format!("/api/operations?state={state}");
            client
                .wait_until(&path, within, |answer| answer.body["total"].as_u64() == Some(0))
                .await;
        }
    }
}

fn data(folder: &std::path::Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    // For its owner only, as a server expects it.
    std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    path
}
