//! Containers on the registered hosts that no application has.

use proximity_domain::host::Host;
use proximity_domain::lease::Lease;
use proximity_domain::{HostId, LeaseKey, NodeName, OperationId, Vmid};
use proximity_eventstore::tables;

use super::Applications;
use crate::dispatch::load;
use crate::error::Error;
use crate::policy::Admin;
use crate::rows::{Columns, text, unreadable};

/// Registered hosts that are asked, at most.
const MAX_HOSTS: usize = 1_000;
/// What is looked at of one that lists nothing, to tell applications from operations.
const MANY: usize = 1_000;

/// A container that can be adopted.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    pub host: HostId,
    pub vmid: Vmid,
    pub name: Option<String>,
    /// `None` when Proxmox does not know.
    pub running: Option<bool>,
    pub node: NodeName,
    /// Bytes that it may use.
    pub memory: Option<u64>,
    /// Bytes of its root disk.
    pub disk: Option<u64>,
    /// Seconds.
    pub uptime: Option<i64>,
    pub cpus: Option<f64>,
}

impl Applications {
    /// Whether this host has containers of ours.
    async fn has_applications(&self, host: HostId) -> Result<bool, Error> {
        let filter = vec![("host_id", text(host))];
        let rows = self.store.rows(&tables::HOST_USAGE, filter, MANY).await.map_err(unreadable)?;
        for row in rows.into_iter().map(Columns) {
            // An operation stands there, too, until it has ended.
            if row.text("application")?.parse::<OperationId>().is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All of one host, or of all active ones. A host that does not answer, or whose list is not
    /// complete, is an error that names it: its containers are not known to be none.
    pub async fn discover(
        &self,
        _admin: &Admin,
        host: Option<HostId>,
    ) -> Result<Vec<Discovered>, Error> {
        let mut found = Vec::new();
        let hosts = self.registered(host).await?;
        if let (Some(host), true) = (host, hosts.is_empty()) {
            let detail = format!("there is no active host with the id {host}");
            return Err(Error::invalid("?host_id", "host.unknown", detail));
        }
        for (id, name, cluster) in hosts {
            let named = |error| named(&name, host.is_none(), Error::from(error));
            let hypervisor = self.hypervisors.of(id).await.map_err(named)?;
            if !hypervisor.sees_all_guests().await.map_err(named)? {
                return Err(Error::Upstream {
                    code: "proxmox.incomplete",
                    detail: format!(
                        "the credential of host {name} may not see all containers: give it VM.Audit \
                         on /vms"
                    ),
                    said: None,
                    timeout: false,
                });
            }
            let guests = hypervisor.guests().await.map_err(named)?;
            if guests.is_empty() && self.has_applications(id).await? {
                return Err(Error::Upstream {
                    code: "proxmox.incomplete",
                    detail: format!(
                        "host {name} lists no guest at all, and applications are on it"
                    ),
                    said: None,
                    timeout: false,
                });
            }
            for guest in guests {
                if !guest.is_container || guest.template {
                    continue;
                }
                let key = LeaseKey::Vmid(cluster.clone(), guest.vmid).to_string();
                let (lease, _) = load::<Lease>(&self.store, &key).await?;
                if matches!(lease, Lease::Held { .. }) {
                    continue;
                }
                found.push(Discovered {
                    host: id,
                    vmid: guest.vmid,
                    name: guest.name,
                    running: guest.running,
                    node: guest.node,
                    memory: guest.memory_total,
                    disk: guest.disk_total,
                    uptime: guest.uptime,
                    cpus: guest.cpus,
                });
            }
        }
        found.sort_by_key(|one| (one.host, one.vmid));
        Ok(found)
    }

    async fn registered(
        &self,
        wanted: Option<HostId>,
    ) -> Result<Vec<(HostId, String, proximity_domain::ClusterName)>, Error> {
        let rows = self.store.rows(&tables::HOST_CONNECTIONS, Vec::new(), MAX_HOSTS).await;
        let mut hosts = Vec::new();
        for row in rows.map_err(unreadable)?.into_iter().map(Columns) {
            let id: HostId = row.parsed("host_id")?;
            if wanted.is_some_and(|wanted| wanted != id) {
                continue;
            }
            let (host, _) = load::<Host>(&self.store, &id.to_string()).await?;
            // A suspended one is asked, and its refusal is the answer.
            if let Some(host) = host.registration().filter(|host| host.is_active) {
                hosts.push((id, host.connection.name.clone(), host.cluster.clone()));
            }
        }
        Ok(hosts)
    }
}

/// Says which host it was, and how to ask the others.
fn named(host: &str, among_others: bool, error: Error) -> Error {
    match error {
        Error::Upstream { code, detail, said, timeout } => {
            let others =
                if among_others { " (ask for the other hosts with `host_id`)" } else { "" };
            let on_it = |text: String| format!("host {host}: {text}{others}");
            Error::Upstream { code, detail: on_it(detail), said: said.map(on_it), timeout }
        }
        other => other,
    }
}
