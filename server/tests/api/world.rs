//! A server with a simulated Proxmox VE registered, and people of each kind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proximity_commands::clock::Clock;
use proximity_commands::policy::Admin;
use proximity_commands::{Actor, CredentialUsed, Identity, admin_actions};
use proximity_domain::user::Role;
use proximity_domain::{SessionId, UserId};
use proximity_eventstore::Recorded;
use proximity_server::config::Config;
use proximity_server::demo::{generated_password, guest_ports};
use proximity_simulator::{NodeConfig, Simulator, SimulatorConfig, SimulatorHandle};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Kind, Server};

/// Everything that a test of deployments needs.
pub struct World {
    pub server: Server,
    pub simulator: SimulatorHandle,
    pub admin: Person,
    pub owner: Person,
    pub other: Person,
}

/// Someone who has signed in.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub token: String,
}

impl World {
    /// Starts all of it.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_| {}).await
    }

    /// Starts all of it with settings changed.
    pub async fn start_with(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        Self::around(Server::start_on_with(kind, change).await).await
    }

    /// Starts all of it by another clock than the machine's.
    pub async fn start_by(kind: Kind, clock: Arc<dyn Clock>) -> Self {
        Self::around(Server::start_on_by(kind, clock, |_| {}).await).await
    }

    /// Starts all of it with other nodes than the usual two.
    pub async fn start_on(kind: Kind, nodes: Vec<NodeConfig>) -> Self {
        Self::around_nodes(Server::start_on(kind).await, nodes).await
    }

    async fn around(server: Server) -> Self {
        Self::around_nodes(server, ["pve1", "pve2"].map(NodeConfig::new).to_vec()).await
    }

    async fn around_nodes(server: Server, nodes: Vec<NodeConfig>) -> Self {
        let simulator = Simulator::start(SimulatorConfig {
            nodes,
            cluster: Some("lab".to_owned()),
            guest_ports: guest_ports(),
            ..SimulatorConfig::quick()
        })
        .await
        .unwrap();
        let password = generated_password();
        server.app.create_admin("root", password.clone().into()).await.unwrap();
        let admin = server.sign_in("root", &password).await;
        let owner = server.new_person(&admin, "ann").await;
        let other = server.new_person(&admin, "bob").await;
        let world = Self { server, simulator, admin, owner, other };
        let host = json!({
            "name": "lab",
            "host": "127.0.0.1",
            "port": world.simulator.address().port(),
            "password": world.simulator.root_password(),
            "fingerprint": world.simulator.fingerprint(),
        });
        let made = world.post(&world.admin, "/api/proxmox/hosts", &host).await;
        assert_eq!(made.status, 201, "{}", made.text);
        world
    }

    pub async fn get(&self, who: &Person, path: &str) -> Answer {
        self.server.as_person(who, Method::GET, path, None).await
    }

    pub async fn post(&self, who: &Person, path: &str, body: &Value) -> Answer {
        self.server.as_person(who, Method::POST, path, Some(body)).await
    }

    /// A call with headers of its own; a body of null is none.
    pub async fn with_headers(
        &self,
        who: &Person,
        method: Method,
        path: &str,
        extra: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {}", who.token);
        let mut headers =
            vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(extra);
        let bytes = (!body.is_null()).then(|| body.to_string().into_bytes());
        self.server.call(method, path, &headers, bytes.as_deref()).await
    }

    /// Deploys and waits until it runs; its id.
    pub async fn deployed(&self, who: &Person, hostname: &str) -> String {
        let body = json!({ "catalog_id": "nginx", "hostname": hostname });
        let answer = self.post(who, "/api/apps/", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let id = answer.body["id"].as_str().unwrap().to_owned();
        self.until(&format!("/api/apps/{id}"), |answer| answer.body["status"] == "running").await;
        id
    }

    /// What was done after a position. Left out is what is counted, such as refusals, and written down when
    /// its minute is over, which may be at any time.
    pub async fn acts(&self, after: u64) -> Vec<Recorded> {
        let mut events = self.server.app.store.feed(after, 10_000).await.unwrap();
        let counted = ["refusal", "call", "secret_use"];
        events.retain(|event| !counted.contains(&event.aggregate_type.as_str()));
        events
    }

    /// How much was done so far.
    pub async fn done(&self) -> usize {
        self.acts(0).await.len()
    }

    /// Puts so many large events into the log, 100 at a time; returns the log's head.
    pub async fn noise(&self, events: usize) -> u64 {
        let session = CredentialUsed::Session(SessionId(Uuid::new_v4()));
        let identity = Identity::User { id: UserId(1), role: Role::Admin, credential: session };
        let admin = Admin::prove(&Actor::new(identity, None, None)).unwrap();
        let (store, path) = (&self.server.app.store, format!("/{}", "x".repeat(8_000)));
        for _ in 0..events / 100 {
            let notes = (0..100).map(|_| admin_actions::note(store, &admin, "test", &path));
            join_all(notes).await.into_iter().for_each(Result::unwrap);
        }
        store.head().await.unwrap()
    }

    /// Backs an application up and waits until it is stored; the backup's number.
    pub async fn backed_up(&self, who: &Person, application: &str) -> i64 {
        let path = format!("/api/apps/{application}/backups");
        let answer = self.post(who, &path, &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let id = answer.body["id"].as_i64().unwrap();
        self.until(&format!("{path}/{id}"), |answer| answer.body["is_completed"] == true).await;
        self.until(&format!("/api/apps/{application}"), |app| app.body["operation"].is_null())
            .await;
        id
    }

    /// Reads as administrator until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.get(&self.admin, path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} stays {}", answer.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn stop(self) {
        self.server.stop().await;
        self.simulator.shutdown().await;
    }
}

impl Server {
    /// A call with a person's token.
    pub async fn as_person(
        &self,
        who: &Person,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", who.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let bytes = body.map(|body| body.to_string().into_bytes());
        self.call(method, path, &headers, bytes.as_deref()).await
    }

    /// Logs in as a script does.
    pub async fn sign_in(&self, name: &str, password: &str) -> Person {
        let body = json!({ "username": name, "password": password }).to_string();
        let headers = [("content-type", "application/json")];
        let answer =
            self.call(Method::POST, "/api/auth/login/", &headers, Some(body.as_bytes())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let token = answer.body["access"].as_str().unwrap().to_owned();
        Person { name: name.to_owned(), token }
    }

    async fn new_person(&self, admin: &Person, name: &str) -> Person {
        let password = generated_password();
        let body = json!({ "username": name, "password": password });
        let made = self.as_person(admin, Method::POST, "/api/users", Some(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        self.sign_in(name, &password).await
    }
}
