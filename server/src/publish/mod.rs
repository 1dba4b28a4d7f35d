//! Published ports: the server listens on each running application's ports and forwards to its
//! container, so that an application's `url` opens a page.

mod embed;
mod forward;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proximity_eventstore::{Position, Store};
use proximity_projections::applications::Filter;
use proximity_projections::{App, Views};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::config;

/// How often the log is asked when nothing wakes the publisher, and bindings that failed are retried.
const SWEEP: Duration = Duration::from_secs(5);
/// Applications and events read at a time.
const PAGE: u32 = 500;
/// How long the views are waited for before an application is looked at again.
const VIEW_PATIENCE: Duration = Duration::from_secs(2);

/// The origin of applications whose ports are not published.
const ADOPTED: &str = "adopted";

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Face {
    /// Byte for byte.
    Public,
    /// HTTP without the headers that forbid framing.
    Embedded,
}

/// Where connections to a port go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    application: String,
    to: SocketAddr,
    face: Face,
}

struct Listener {
    target: watch::Sender<Target>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which ports could not be listened on, by application; shared with the handlers.
#[derive(Clone, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<String, BTreeMap<u16, String>>>>);

impl Problems {
    /// Why an application cannot be reached on one of its ports.
    pub fn of(&self, application: &str) -> Option<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.get(application).and_then(|ports| ports.values().next().cloned())
    }

    /// Whether this port of an application is not listened on.
    pub fn has(&self, application: &str, port: u16) -> bool {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.get(application).is_some_and(|ports| ports.contains_key(&port))
    }

    fn set(&self, application: &str, port: u16, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => {
                problems.entry(application.to_owned()).or_default().insert(port, problem);
            }
            None => {
                if let Some(ports) = problems.get_mut(application) {
                    ports.remove(&port);
                    if ports.is_empty() {
                        problems.remove(application);
                    }
                }
            }
        }
    }
}

/// Keeps the listeners as the applications are.
pub struct Publisher {
    store: Store,
    views: Views,
    bind: IpAddr,
    problems: Problems,
    /// What each application wants.
    wanted: BTreeMap<String, BTreeMap<u16, Target>>,
    listeners: BTreeMap<u16, Listener>,
    /// A place for each connection to any port.
    places: Arc<Semaphore>,
    cursor: Position,
}

/// Stops a publisher.
pub struct Handle {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Handle {
    /// Closes all listeners.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the publisher did not end by itself");
        }
    }
}

impl Publisher {
    /// Starts listening for what runs; `None` when publishing is switched off.
    pub fn start(
        store: Store,
        views: Views,
        config: &config::Publish,
        problems: Problems,
    ) -> Option<Handle> {
        if !config.enabled {
            return None;
        }
        let (stop, stopping) = watch::channel(false);
        let publisher = Self {
            store,
            views,
            bind: config.bind,
            problems,
            wanted: BTreeMap::new(),
            listeners: BTreeMap::new(),
            places: Arc::new(Semaphore::new(config.max_connections)),
            cursor: 0,
        };
        Some(Handle { stop, task: tokio::spawn(publisher.run(stopping)) })
    }

    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut head = self.store.watch_head();
        let mut loaded = false;
        while !*stopping.borrow() {
            let turn = if loaded { self.follow().await } else { self.load().await };
            match turn {
                Ok(()) => loaded = true,
                Err(error) => tracing::warn!(error, "published ports may lag behind"),
            }
            self.bind_all().await;
            tokio::select! {
                _ = stopping.changed() => {}
                () = tokio::time::sleep(SWEEP) => {}
                changed = head.changed() => if changed.is_err() {
                    tokio::time::sleep(SWEEP).await;
                },
            }
        }
    }

    /// All applications as the views have them now; what comes later is in the log after this.
    async fn load(&mut self) -> Result<(), String> {
        self.cursor = self.views.position();
        for page in 1.. {
            let apps = self
                .views
                .apps(&Filter::default(), page, PAGE)
                .await
                .map_err(|error| error.to_string())?;
            for app in &apps.items {
                self.wanted.insert(app.id.clone(), targets(app));
            }
            if u64::from(page) * u64::from(PAGE) >= apps.total {
                break;
            }
        }
        Ok(())
    }

    /// Looks again at each application that something has happened to.
    async fn follow(&mut self) -> Result<(), String> {
        loop {
            let page = self
                .store
                .feed(self.cursor, PAGE as usize)
                .await
                .map_err(|error| error.to_string())?;
            let Some(last) = page.last().map(|event| event.position) else { return Ok(()) };
            let touched: BTreeSet<&str> = page
                .iter()
                .filter(|event| event.aggregate_type == "application")
                .map(|event| event.aggregate_id.as_str())
                .collect();
            if !touched.is_empty() && !self.views.wait_for(last, VIEW_PATIENCE).await {
                return Err("the views have not caught up".to_owned());
            }
            for id in touched {
                let app = self.views.app(id, false).await.map_err(|error| error.to_string())?;
                self.wanted.insert(id.to_owned(), app.as_ref().map(targets).unwrap_or_default());
            }
            self.cursor = last;
        }
    }

    /// Makes the listeners as they should be.
    async fn bind_all(&mut self) {
        self.wanted.retain(|id, ports| {
            if ports.is_empty() {
                self.problems.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
            !ports.is_empty()
        });
        let mut wanted: BTreeMap<u16, Target> = BTreeMap::new();
        let all = self.wanted.values().flatten();
        for (port, target) in all {
            let known = wanted.entry(*port).or_insert_with(|| target.clone());
            if known.application != target.application {
                // The ranges of ports were others when it got this one.
                let problem = format!("port {port} is another application's");
                self.problems.set(&target.application, *port, Some(problem));
            }
        }
        self.listeners
            .retain(|port, listener| wanted.contains_key(port) && !listener.task.is_finished());
        for (port, target) in wanted {
            if let Some(listener) = self.listeners.get(&port) {
                listener.target.send_if_modified(|now| {
                    let differs = *now != target;
                    if differs {
                        now.clone_from(&target);
                    }
                    differs
                });
                continue;
            }
            let application = target.application.clone();
            match TcpListener::bind((self.bind, port)).await {
                Ok(listener) => {
                    let (sender, receiver) = watch::channel(target);
                    let task =
                        tokio::spawn(forward::serve(listener, receiver, self.places.clone()));
                    self.listeners.insert(port, Listener { target: sender, task });
                    self.problems.set(&application, port, None);
                }
                Err(error) => {
                    let problem = format!("port {port} cannot be listened on: {}", why(&error));
                    if !self.problems.has(&application, port) {
                        tracing::warn!(application, port, %error, "a port cannot be listened on");
                    }
                    self.problems.set(&application, port, Some(problem));
                }
            }
        }
    }
}

/// Why a port cannot be had, in words of our own: owners read it. The log has the system's.
fn why(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AddrInUse => "another program has it",
        ErrorKind::PermissionDenied => "the server may not",
        ErrorKind::AddrNotAvailable => "the address to listen on is not one of this machine",
        _ => "the machine refuses it",
    }
}

/// The ports that an application is to be reached on: none unless it runs and has an address.
fn targets(app: &App) -> BTreeMap<u16, Target> {
    let mut ports = BTreeMap::new();
    // An adopted container's ports are its own: it is reached directly.
    if app.origin == ADOPTED {
        return ports;
    }
    let runs = matches!(app.status.as_str(), "running" | "updating");
    let address = app.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
    if let (true, Some(address), Some(endpoint)) = (runs, address, &app.endpoint)
        && endpoint.protocol != "udp"
    {
        let to = SocketAddr::new(address, endpoint.port);
        let application = app.id.clone();
        // What is encrypted between the container and the reader cannot be rewritten on the way.
        let face = if endpoint.protocol == "http" { Face::Embedded } else { Face::Public };
        if let Some(port) = app.internal_port {
            ports.insert(port, Target { application: application.clone(), to, face });
        }
        if let Some(port) = app.public_port {
            ports.insert(port, Target { application, to, face: Face::Public });
        }
    }
    ports
}

/// Fills in what a person can open, and why not when a port is not listened on.
pub fn fill(app: &mut App, config: &config::Publish, problems: &Problems, asked: Option<&str>) {
    let Some(endpoint) = app.endpoint.clone() else { return };
    let path = endpoint.path.as_deref().unwrap_or_default();
    let path =
        if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let direct = app.address.as_ref().map(|address| {
        format!("{}://{}:{}{path}", endpoint.protocol, bracketed(address), endpoint.port)
    });
    if !config.enabled || endpoint.protocol == "udp" || app.origin == ADOPTED {
        app.url.clone_from(&direct);
        if endpoint.protocol.starts_with("http") {
            app.iframe_url = direct;
        }
        return;
    }
    let host = match (&config.host, config.bind.is_unspecified(), asked) {
        (Some(host), _, _) => host.clone(),
        (None, true, Some(asked)) => host_of(asked),
        (None, _, _) => bracketed(&config.bind.to_string()),
    };
    let on = |port: Option<u16>| {
        let port = port?;
        if problems.has(&app.id, port) {
            return direct.clone();
        }
        Some(format!("{}://{host}:{port}{path}", endpoint.protocol))
    };
    let (url, iframe_url) = (on(app.public_port), on(app.internal_port));
    app.url = url;
    if endpoint.protocol.starts_with("http") {
        app.iframe_url = iframe_url;
    }
    if app.problem.is_none() {
        app.problem = problems.of(&app.id);
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The name or address of a `Host` header, without its port.
fn host_of(header: &str) -> String {
    match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
        _ => header.to_owned(),
    }
}
