//! The reference model: what the log says, folded by rules of its own from the stored JSON alone.

use std::collections::{BTreeMap, BTreeSet};

use proximity_eventstore::Recorded;
use serde_json::Value;

use super::{Call, Command, Thing};

/// An application as far as commands depend on it.
#[derive(Debug, Clone, Default)]
struct App {
    owner: i64,
    hostname: String,
    /// As the contract names it.
    status: String,
    running: bool,
    /// Its own making has ended well.
    complete: bool,
    /// It holds nothing; it can only be deleted.
    hollow: bool,
    removed: bool,
    lost: bool,
    /// The operation that it is reserved for, and its kind.
    current: Option<(String, String)>,
}

/// Everything that decides whether a command is accepted.
#[derive(Debug, Default)]
pub struct Reference {
    apps: BTreeMap<String, App>,
    /// Lease → holder; quarantined and foreign ones are held by nobody that can be named.
    leases: BTreeMap<String, String>,
    /// Host → its name.
    hosts: BTreeMap<i64, String>,
    /// Default memory in MB.
    memory: Option<i64>,
    /// Operations that have not ended.
    open: BTreeSet<String>,
    /// What was stored although it could not have followed.
    pub illegal: Vec<String>,
}

/// What a command would meet now.
#[derive(Debug, PartialEq, Eq)]
pub enum Meets {
    /// It is accepted, and has an effect.
    Accept,
    /// It is so already.
    AlreadySo,
    /// It is refused, for any of these reasons.
    Refuse(Vec<&'static str>),
}

impl Reference {
    /// Judges a command by the state as it is now.
    pub fn meets(&self, call: &Call) -> Meets {
        let mut why = Vec::new();
        match &call.command {
            Command::Deploy { hostname } => self.free(hostname, &mut why),
            Command::Clone { app, hostname } => {
                self.free(hostname, &mut why);
                self.reserve(call, app, "clone", &mut why);
            }
            Command::Backup { app } => self.reserve(call, app, "backup", &mut why),
            Command::Act { app, action } => {
                self.reserve(call, app, action, &mut why);
                let running = self.apps.get(app).is_some_and(|app| app.running);
                let so = (*action == "start" && running) || (*action == "stop" && !running);
                let hollow = self.apps.get(app).is_some_and(|app| app.hollow);
                if why.is_empty() && so && !hollow {
                    return Meets::AlreadySo;
                }
            }
            Command::RenameHost { host, name } => {
                let lease = format!("host-name/{}", name.to_lowercase());
                if self.leases.get(&lease).is_some_and(|by| *by != format!("host {host}")) {
                    why.push("host.name_taken");
                }
                if self.hosts.get(host) == Some(name) {
                    return Meets::AlreadySo;
                }
            }
            Command::Memory { megabytes } => {
                if self.memory == Some(*megabytes) {
                    return Meets::AlreadySo;
                }
            }
            Command::Read { thing, .. } => {
                if matches!(thing, Thing::App(app) if self.seen(call, app).is_none()) {
                    why.push("not_found");
                }
            }
        }
        if why.is_empty() { Meets::Accept } else { Meets::Refuse(why) }
    }

    /// Whether a reader can have been shown this.
    pub fn shows(&self, thing: &Thing, body: &Value) -> bool {
        match thing {
            Thing::App(app) => self.apps.get(app).is_some_and(|app| {
                !app.removed
                    && is(body, "status", &app.status)
                    && is(body, "hostname", &app.hostname)
            }),
            Thing::Memory => body["default_memory_mb"].as_i64() == self.memory,
            Thing::HostName(host) => {
                self.hosts.get(host).is_some_and(|name| is(body, "name", name))
            }
        }
    }

    fn seen(&self, call: &Call, app: &str) -> Option<&App> {
        let app = self.apps.get(app).filter(|app| !app.removed)?;
        (call.is_admin || app.owner == call.caller).then_some(app)
    }

    fn free(&self, hostname: &str, why: &mut Vec<&'static str>) {
        let name = hostname.to_lowercase();
        if self.leases.contains_key(&format!("hostname/{}", name.trim_end_matches('.'))) {
            why.push("hostname.taken");
        }
    }

    /// Whether an operation of this kind may begin on the application.
    fn reserve(&self, call: &Call, app: &str, kind: &str, why: &mut Vec<&'static str>) {
        let Some(app) = self.seen(call, app) else {
            why.push("not_found");
            // Its container was asked for while its removal ended.
            why.extend((kind == "clone").then_some("application.container_missing"));
            return;
        };
        if let Some((_, by)) = &app.current {
            let is_stuck = app.status == "error";
            why.push(if is_stuck { "operation.stuck" } else { "application.busy" });
            why.extend(
                (kind == "clone" && by == "delete").then_some("application.container_missing"),
            );
            return;
        }
        if app.hollow && kind != "delete" {
            why.push("application.only_deletable");
        } else if app.lost && matches!(kind, "start" | "restart" | "clone" | "backup") {
            why.push("application.container_missing");
        } else if kind == "restart" && !app.running {
            why.push("application.not_running");
        }
    }

    /// Folds one event; what could not have followed is noted.
    pub fn apply(&mut self, event: &Recorded) {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        // An enum is written as its variant's name over its content.
        let inner = match &payload {
            Value::Object(map) => map.values().next().cloned().unwrap_or_default(),
            other => other.clone(),
        };
        let id = event.aggregate_id.as_str();
        let name = event.event_type.rsplit('.').next().unwrap();
        match event.aggregate_type.as_str() {
            "application" => self.application(id, name, &inner, event.position),
            "lease" => self.lease(id, name, &inner, event.position),
            "operation" => self.operation(id, name, event.position),
            "host" => self.host(id, name, &inner),
            "settings" if name == "resources_changed" => {
                self.memory = inner["resources"]["memory"].as_i64();
                assert!(self.memory.is_some(), "{payload}");
            }
            _ => {}
        }
    }

    fn wrong(&mut self, position: u64, what: String) {
        self.illegal.push(format!("position {position}: {what}"));
    }

    fn lease(&mut self, key: &str, name: &str, inner: &Value, position: u64) {
        let holder = holder(&inner["holder"]);
        match name {
            "acquired" => {
                if let Some(by) = self.leases.insert(key.to_owned(), holder.clone()) {
                    self.wrong(position, format!("{key} went to {holder} while {by} held it"));
                }
            }
            "released" => match self.leases.remove(key) {
                Some(by) if by == holder => {}
                by => self.wrong(position, format!("{key} was given back by {holder}, not {by:?}")),
            },
            "quarantined" => {
                self.leases.insert(key.to_owned(), "quarantine".to_owned());
            }
            "cleared" => {
                self.leases.remove(key);
            }
            "found_foreign" => {
                self.leases.insert(key.to_owned(), "a stranger".to_owned());
            }
            other => self.wrong(position, format!("an unknown lease event {other}")),
        }
    }

    fn operation(&mut self, id: &str, name: &str, position: u64) {
        match name {
            "planned" => {
                if !self.open.insert(id.to_owned()) {
                    self.wrong(position, format!("operation {id} was planned twice"));
                }
            }
            "completed" | "undone" | "abandoned" => {
                if !self.open.remove(id) {
                    self.wrong(position, format!("operation {id} ended twice"));
                }
            }
            _ => {
                if !self.open.contains(id) {
                    self.wrong(position, format!("operation {id} went on after its end"));
                }
            }
        }
    }

    fn host(&mut self, id: &str, name: &str, inner: &Value) {
        let id: i64 = id.parse().unwrap();
        match name {
            "registered" | "changed" => {
                let name = inner["connection"]["name"].as_str().unwrap().to_owned();
                self.hosts.insert(id, name);
            }
            "removed" => {
                self.hosts.remove(&id);
            }
            _ => {}
        }
    }

    fn application(&mut self, id: &str, name: &str, inner: &Value, position: u64) {
        if name == "requested" {
            let origin = inner["origin"]["kind"].as_str().unwrap_or("deployed");
            let (kind, status) = match origin {
                "cloned" => ("clone", "cloning"),
                "adopted" => ("adopt", "adopting"),
                _ => ("deploy", "deploying"),
            };
            let app = App {
                owner: inner["owner"].as_i64().unwrap(),
                hostname: inner["holdings"]["hostname"].as_str().unwrap().to_owned(),
                status: status.to_owned(),
                current: Some((text(&inner["operation"]), kind.to_owned())),
                ..App::default()
            };
            if self.apps.insert(id.to_owned(), app).is_some() {
                self.wrong(position, format!("{id} was requested twice"));
            }
            return;
        }
        let Some(app) = self.apps.get_mut(id).filter(|app| !app.removed) else {
            return self.wrong(position, format!("{id} is not there, and yet {name}"));
        };
        let operation = text(&inner["operation"]);
        let is_current = app.current.as_ref().is_some_and(|(current, _)| *current == operation);
        let running = inner["running"].as_bool().unwrap_or_default();
        match name {
            "operation_began" => {
                let busy = app.current.clone();
                let kind = text(&inner["kind"]);
                app.status = if kind == "delete" { "removing" } else { "updating" }.to_owned();
                app.current = Some((operation.clone(), kind));
                if let Some((by, _)) = busy {
                    self.wrong(position, format!("{id}: {operation} began while {by} ran"));
                }
                return;
            }
            "observed" | "lost" => {
                let busy = app.current.is_some();
                app.lost = name == "lost";
                app.running = running && !app.lost;
                app.status = if app.lost { "error" } else { state(running) }.to_owned();
                if busy {
                    self.wrong(position, format!("{id} was {name} while an operation ran"));
                }
                return;
            }
            _ if !is_current => {
                return self.wrong(position, format!("{id}: {name} by {operation}, not its own"));
            }
            "vmid_replaced" => return,
            "operation_stuck" => {
                app.status = "error".to_owned();
                return;
            }
            _ => {}
        }
        app.current = None;
        match name {
            "deployed" | "started" | "restarted" => app.settle(true),
            "clone_ready" | "adopted" | "cloned" => app.settle(running),
            "stopped" => app.settle(false),
            "operation_failed" | "operation_ended" => {
                app.running = running;
                let status = if app.hollow || app.lost { "error" } else { state(running) };
                app.status = status.to_owned();
            }
            "deployment_failed" => {
                app.hollow = true;
                app.status = "error".to_owned();
            }
            "operation_abandoned" => {
                app.hollow |= !app.complete;
                app.running = inner["running"].as_bool().unwrap_or(app.running);
                app.status = "error".to_owned();
            }
            "removed" => app.removed = true,
            other => self.wrong(position, format!("an unknown application event {other}")),
        }
    }
}

impl App {
    fn settle(&mut self, running: bool) {
        self.running = running;
        self.complete = true;
        self.status = state(running).to_owned();
    }
}

fn state(running: bool) -> &'static str {
    if running { "running" } else { "stopped" }
}

fn is(body: &Value, field: &str, wanted: &str) -> bool {
    body[field].as_str() == Some(wanted)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `{"application": "nginx-1"}` → `application nginx-1`.
fn holder(value: &Value) -> String {
    let Some((kind, id)) = value.as_object().and_then(|map| map.iter().next()) else {
        return String::new();
    };
    format!("{kind} {}", id.as_str().map_or_else(|| id.to_string(), str::to_owned))
}
