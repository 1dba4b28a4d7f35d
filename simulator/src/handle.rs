//! Starting a simulator, and what a test or the demo holds in its hand afterwards.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::api::power;
use crate::auth::random_secret;
use crate::auth::rights::Acl;
use crate::config::{SimulatorConfig, TaskTimes};
use crate::error::Error;
use crate::fault::Faults;
use crate::seen::RequestsSeen;
use crate::sim::Sim;
use crate::tls::{Certificates, Presented};
use crate::world::journal::Effect;
use crate::world::ledger::Ledger;
use crate::{control, server};

/// Starts simulators.
pub struct Simulator;

/// A running simulator. Dropping it stops it; `shutdown` also waits until it has stopped.
pub struct SimulatorHandle {
    pub(crate) sim: Arc<Sim>,
    address: SocketAddr,
    control: SocketAddr,
    root_password: String,
    connections: TaskTracker,
}

async fn bind(address: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let io =
        |source| Error::Io { what: format!("binding the {what} listener to {address}"), source };
    let listener = TcpListener::bind(address).await.map_err(io)?;
    let local = listener.local_addr().map_err(io)?;
    Ok((listener, local))
}

fn check(config: &SimulatorConfig) -> Result<(), Error> {
    if config.nodes.is_empty() {
        return Err(Error::Config("there has to be a node".to_owned()));
    }
    if config.nodes.len() > 1 && config.cluster.is_none() {
        return Err(Error::Config("several nodes are a cluster and need its name".to_owned()));
    }
    for address in [config.listen, config.control] {
        if !address.ip().is_loopback() {
            return Err(Error::Config(format!("{address} is not on loopback")));
        }
    }
    Ok(())
}

impl Simulator {
    /// Starts a simulator and returns when it answers.
    ///
    /// # Errors
    /// `Config` for a configuration that contradicts itself, `Io` if a listener cannot be bound.
    pub async fn start(config: SimulatorConfig) -> Result<SimulatorHandle, Error> {
        check(&config)?;
        let names: Vec<String> = config.nodes.iter().map(|node| node.name.clone()).collect();
        let certificates = Certificates::new(&names)?;
        let tls = certificates.server_config()?;
        let root_password = config.root_password.clone().unwrap_or_else(random_secret);
        let (listener, address) = bind(config.listen, "HTTPS").await?;
        let (control_listener, control) = bind(config.control, "control").await?;
        let sim = Arc::new(Sim::new(config, certificates, root_password.clone()));
        let connections = TaskTracker::new();
        connections.spawn(server::run(sim.clone(), listener, tls, connections.clone()));
        connections.spawn(control::run(sim.clone(), control_listener, connections.clone()));
        Ok(SimulatorHandle { sim, address, control, root_password, connections })
    }
}

impl SimulatorHandle {
    /// The base URL, such as `https://127.0.0.1:8006`; the API lies below `/api2/json`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where HTTPS is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of the control surface (plain HTTP).
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// SHA-256 of the certificate that is shown now, upper case, colon separated.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.sim.certificates.fingerprint()
    }

    /// The authority that signed the node certificate, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.sim.certificates.ca_pem()
    }

    /// The password of `root@pam`.
    #[must_use]
    pub fn root_password(&self) -> &str {
        &self.root_password
    }

    /// Everything that exists now.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.sim.world().ledger()
    }

    /// Every effect so far.
    #[must_use]
    pub fn journal(&self) -> Vec<Effect> {
        self.sim.world().journal.all()
    }

    /// The fault script.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.sim.faults
    }

    /// Removes every fault and lets hanging tasks go on.
    pub fn clear_faults(&self) {
        self.sim.faults.clear();
    }

    /// Everything that arrived, and whether a credential did.
    #[must_use]
    pub fn requests_seen(&self) -> RequestsSeen {
        self.sim.seen.all()
    }

    /// Changes which certificate is shown to new connections, and returns its fingerprint.
    ///
    /// # Errors
    /// `Certificate` or `Tls` if it cannot be made.
    pub fn set_cert(&self, what: Presented) -> Result<String, Error> {
        self.sim.certificates.present(what)
    }

    /// Moves the host's clock, in seconds from the real one: tickets age with it.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.sim.set_clock_offset(seconds);
    }

    /// Changes how long tasks take from now on.
    pub fn set_task_times(&self, times: TaskTimes) {
        self.sim.set_task_times(times);
    }

    /// The most protected calls that ever ran at once, over all nodes.
    #[must_use]
    pub fn busiest(&self) -> usize {
        self.sim.busiest.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Adds a user such as `ann@pve` and returns a fresh password.
    #[must_use]
    pub fn add_user(&self, user: &str) -> String {
        self.sim.add_user(user)
    }

    /// Adds an API token and returns the value of its `Authorization` header's credential,
    /// `user!name=secret`.
    ///
    /// # Errors
    /// `Unknown` if the user does not exist or the token already does.
    pub fn add_token(&self, user: &str, name: &str, privsep: bool) -> Result<String, Error> {
        let secret = self.sim.add_token(user, name, privsep, 0, None).map_err(|refusal| {
            Error::Unknown { kind: "user without such a token", name: refusal.reason }
        })?;
        Ok(format!("{user}!{name}={secret}"))
    }

    /// Defines a role.
    pub fn add_role(&self, name: &str, privileges: &[&str]) {
        let privileges = privileges.iter().map(|privilege| (*privilege).to_owned()).collect();
        self.sim.world().access.roles.insert(name.to_owned(), privileges);
    }

    /// Gives a user (`ann@pve`) or a token (`ann@pve!t`) a role on a path and all below it.
    pub fn grant(&self, path: &str, id: &str, role: &str) {
        self.sim.world().access.acl.insert(Acl {
            path: path.to_owned(),
            kind: if id.contains('!') { "token" } else { "user" },
            id: id.to_owned(),
            role: role.to_owned(),
            propagate: true,
        });
    }

    /// Cuts a node's power: its tasks die, its guests stop, its config locks stay.
    ///
    /// # Errors
    /// `Unknown` if the node is not there.
    pub async fn node_down(&self, name: &str) -> Result<(), Error> {
        node_down(&self.sim, name).await
    }

    /// Brings a node back; guests with `onboot` start.
    ///
    /// # Errors
    /// `Unknown` if the node is not there.
    pub async fn node_up(&self, name: &str) -> Result<(), Error> {
        node_up(&self.sim, name).await
    }

    /// Waits until no task runs any more. A task that hangs by a fault hangs on.
    pub async fn idle(&self) {
        loop {
            let ended: Vec<_> = {
                let world = self.sim.world();
                let running = world.tasks.iter().filter(|task| task.exit.is_none());
                running.map(|task| task.ended.clone()).collect()
            };
            if ended.is_empty() {
                return;
            }
            for token in ended {
                token.cancelled().await;
            }
        }
    }

    /// Stops listening, ends every task and guest, and returns when all ports are closed.
    pub async fn shutdown(self) {
        stop(&self.sim);
        self.connections.close();
        self.connections.wait().await;
        self.sim.tracker.close();
        self.sim.tracker.wait().await;
        let guests: Vec<_> = {
            let mut world = self.sim.world();
            let containers = world.containers.values_mut();
            containers.filter_map(|container| container.running.take()).collect()
        };
        for running in guests {
            running.guest.halt().await;
        }
    }
}

impl Drop for SimulatorHandle {
    fn drop(&mut self) {
        stop(&self.sim);
    }
}

fn stop(sim: &Sim) {
    sim.shutdown.cancel();
    for task in sim.world().tasks.iter().filter(|task| task.exit.is_none()) {
        task.kill.cancel();
    }
}

fn known_node(sim: &Sim, name: &str) -> Result<(), Error> {
    if sim.world().nodes.contains_key(name) {
        return Ok(());
    }
    Err(Error::Unknown { kind: "node", name: name.to_owned() })
}

pub(crate) async fn node_down(sim: &Sim, name: &str) -> Result<(), Error> {
    known_node(sim, name)?;
    power::cut_power(sim, name).await;
    Ok(())
}

pub(crate) async fn node_up(sim: &Arc<Sim>, name: &str) -> Result<(), Error> {
    known_node(sim, name)?;
    power::restore_power(sim, name).await;
    Ok(())
}
