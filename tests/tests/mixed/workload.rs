//! The callers: what they ask for, at which server, and what they write down about it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proximity_tests::history::{Call, Command, Outcome, Thing};
use proximity_tests::http::{Answer, Client};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::json;

/// Names that callers fight over: not so many that each gets one.
const CONTESTED: usize = 40;
/// Names that hosts are given.
pub const HOST_NAMES: [&str; 3] = ["lab", "annex", "Third"];

/// Somebody who is signed in at both servers.
pub struct Person {
    pub id: i64,
    pub is_admin: bool,
    pub at: [Client; 2],
}

/// What callers share: the history, and what they know of each other's things.
pub struct World {
    pub people: Vec<Person>,
    pub hosts: Vec<i64>,
    pub seed: u64,
    began: Instant,
    calls: Mutex<Vec<Call>>,
    apps: Mutex<Vec<Known>>,
    /// The greatest position that any caller was told.
    told: AtomicU64,
    number: AtomicUsize,
}

/// An application that was accepted.
struct Known {
    id: String,
    hostname: String,
    owner: i64,
}

/// The name of the route that a command goes through; a read has no key.
pub fn route(command: &Command) -> Option<&'static str> {
    match command {
        Command::Deploy { .. } => Some("Post /api/apps"),
        Command::Act { .. } => Some("Post /api/apps/{id}/action"),
        Command::Clone { .. } => Some("Post /api/apps/{id}/clone"),
        Command::Backup { .. } => Some("Post /api/apps/{id}/backups"),
        Command::RenameHost { .. } => Some("Put /api/proxmox/hosts/{id}"),
        Command::Memory { .. } => Some("Post /api/core/settings/resources"),
        Command::Read { .. } => None,
    }
}

impl World {
    pub fn new(people: Vec<Person>, hosts: Vec<i64>, seed: u64) -> Self {
        Self {
            people,
            hosts,
            seed,
            began: Instant::now(),
            calls: Mutex::default(),
            apps: Mutex::default(),
            told: AtomicU64::new(0),
            number: AtomicUsize::new(0),
        }
    }

    /// The history so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The ids of applications whose host name begins so, of one owner or of all.
    pub fn apps_named(&self, prefix: &str, owner: Option<i64>) -> Vec<String> {
        let apps = self.apps.lock().unwrap();
        let is_owners = |app: &Known| owner.is_none_or(|owner| app.owner == owner);
        let fitting = apps.iter().filter(|app| app.hostname.starts_with(prefix) && is_owners(app));
        fitting.map(|app| app.id.clone()).collect()
    }

    /// Applications to begin with, of everybody.
    pub async fn base(&self, count: usize) {
        let deploys = (0..count).map(|number| async move {
            let mut chance = StdRng::seed_from_u64(self.seed ^ number as u64);
            let hostname = format!("base-{number}");
            let person = &self.people[number % self.people.len()];
            self.call(person, Command::Deploy { hostname }, &mut chance, false).await;
        });
        join_all(deploys).await;
        assert_eq!(self.apps.lock().unwrap().len(), count, "{:#?}", self.calls());
    }

    /// So many callers at once; each asks for one thing and, once that is answered, for another.
    pub async fn rush(&self, callers: usize) {
        let callers = (0..callers).map(|caller| async move {
            let mut chance = StdRng::seed_from_u64(self.seed ^ (caller as u64) << 16);
            for _ in 0..2 {
                let person = self.people.choose(&mut chance).unwrap();
                let command = self.choose(person, &mut chance);
                self.call(person, command, &mut chance, true).await;
            }
        });
        join_all(callers).await;
    }

    fn choose(&self, person: &Person, chance: &mut StdRng) -> Command {
        let app = {
            let apps = self.apps.lock().unwrap();
            let own: Vec<_> = apps.iter().filter(|app| app.owner == person.id).collect();
            // Now and then somebody else's: to a user it does not exist.
            let stranger = person.is_admin || own.is_empty() || chance.random_ratio(1, 12);
            let app =
                if stranger { apps.choose(chance).unwrap() } else { own.choose(chance).unwrap() };
            app.id.clone()
        };
        let number = self.number.load(Ordering::Relaxed);
        let act = |app, action| Command::Act { app, action };
        match chance.random_range(0..100) {
            0..30 => self.read(Thing::App(app)),
            30..46 => {
                let name = format!("web-{}", chance.random_range(0..CONTESTED));
                // The same name in another way of writing it.
                let hostname =
                    if chance.random() { name } else { format!("{}.", name.to_uppercase()) };
                Command::Deploy { hostname }
            }
            46..49 => {
                Command::Deploy { hostname: format!("free-{number}-{}", chance.random::<u32>()) }
            }
            49..58 => act(app, "start"),
            58..67 => act(app, "stop"),
            67..73 => act(app, "restart"),
            73..78 => act(app, "delete"),
            78..84 => {
                let hostname = format!("web-{}", chance.random_range(0..CONTESTED));
                Command::Clone { app, hostname }
            }
            84..90 => Command::Backup { app },
            90..95 if person.is_admin => Command::RenameHost {
                host: *self.hosts.choose(chance).unwrap(),
                name: (*HOST_NAMES.choose(chance).unwrap()).to_owned(),
            },
            95..100 if person.is_admin => {
                Command::Memory { megabytes: 1_024 + chance.random_range(0..64) }
            }
            _ => self.read(Thing::App(app)),
        }
    }

    /// Reads something as it was when anybody was last told anything, or later.
    pub fn read(&self, thing: Thing) -> Command {
        Command::Read { thing, since: self.told.load(Ordering::SeqCst) }
    }

    /// Makes one call and writes down what came of it. Some callers hang up before they are answered;
    /// half of those ask again under the same key.
    pub async fn call(
        &self,
        person: &Person,
        command: Command,
        chance: &mut StdRng,
        may_hang_up: bool,
    ) {
        let key = format!("call-{}", self.number.fetch_add(1, Ordering::SeqCst));
        let hangs_up = may_hang_up && route(&command).is_some() && chance.random_ratio(1, 16);
        let invoked = self.began.elapsed();
        let mut answer = None;
        let mut repeated = false;
        if hangs_up {
            let patience = Duration::from_millis(chance.random_range(1..60));
            let call = self.send(person, &command, &key, chance);
            answer = tokio::time::timeout(patience, call).await.ok().and_then(Result::ok);
            repeated = answer.is_none() && chance.random();
        }
        if !hangs_up || repeated {
            answer = self.send(person, &command, &key, chance).await.ok();
        }
        let returned = answer.is_some().then(|| self.began.elapsed());
        let outcome = match answer {
            Some(answer) if answer.code() == "idempotency_key.answer_gone" => Outcome::Gone,
            // Turned away before its key was looked at, or while the first time is still under way:
            // neither says what comes of that.
            Some(answer) if repeated && says_nothing(&answer) => Outcome::Info,
            Some(answer) => self.outcome(person, &command, answer),
            None => Outcome::Info,
        };
        let call = Call {
            key,
            caller: person.id,
            is_admin: person.is_admin,
            command,
            invoked,
            returned,
            outcome,
            repeated,
            kept: None,
        };
        self.calls.lock().unwrap().push(call);
    }

    async fn send(
        &self,
        person: &Person,
        command: &Command,
        key: &str,
        chance: &mut StdRng,
    ) -> Result<Answer, reqwest::Error> {
        let client = person.at.choose(chance).unwrap();
        let (method, path, body) = match command {
            Command::Deploy { hostname } => (
                Method::POST,
                "/api/apps/".to_owned(),
                json!({ "catalog_id": "alpine", "hostname": hostname }),
            ),
            Command::Act { app, action } => {
                (Method::POST, format!("/api/apps/{app}/action"), json!({ "action": action }))
            }
            Command::Clone { app, hostname } => (
                Method::POST,
                format!("/api/apps/{app}/clone"),
                json!({ "new_hostname": hostname, "allow_downtime": true }),
            ),
            Command::Backup { app } => {
                (Method::POST, format!("/api/apps/{app}/backups"), json!({ "backup_type": "stop" }))
            }
            Command::RenameHost { host, name } => {
                (Method::PUT, format!("/api/proxmox/hosts/{host}"), json!({ "name": name }))
            }
            Command::Memory { megabytes } => (
                Method::POST,
                "/api/core/settings/resources".to_owned(),
                json!({
                    "default_cpu_cores": 1, "default_memory_mb": megabytes,
                    "default_disk_gb": 4, "default_swap_mb": 0,
                }),
            ),
            Command::Read { thing, since } => {
                let path = match thing {
                    Thing::App(app) => format!("/api/apps/{app}"),
                    Thing::Memory => "/api/core/settings/resources".to_owned(),
                    Thing::HostName(host) => format!("/api/proxmox/hosts/{host}"),
                };
                let path = format!("{path}?min_position={since}");
                return client.try_call(Method::GET, &path, None, &[]).await;
            }
        };
        client.try_call(method, &path, Some(&body), &[("idempotency-key", key)]).await
    }

    fn outcome(&self, person: &Person, command: &Command, answer: Answer) -> Outcome {
        let header =
            |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let request = header("x-request-id").unwrap();
        if !answer.status.is_success() {
            let code = answer.code().to_owned();
            assert!(answer.status.as_u16() != 500 && !code.is_empty(), "{answer:?}");
            return Outcome::Fail { code, request };
        }
        let position = header("proximity-position").unwrap();
        let position = position.rsplit('.').next().unwrap().parse().unwrap();
        self.told.fetch_max(position, Ordering::SeqCst);
        let operation = header("location")
            .and_then(|path| path.strip_prefix("/api/operations/").map(str::to_owned));
        // A clone belongs to whoever asked for it, as a deployment does.
        if let Command::Deploy { hostname } | Command::Clone { hostname, .. } = command {
            let id = answer.body["id"].as_str().unwrap().to_owned();
            let hostname = hostname.to_lowercase();
            self.apps.lock().unwrap().push(Known { id, hostname, owner: person.id });
        }
        Outcome::Ok { position, request, operation, body: answer.body }
    }
}

fn says_nothing(answer: &Answer) -> bool {
    answer.status.is_server_error() || answer.code() == "idempotency_key.in_progress"
}
