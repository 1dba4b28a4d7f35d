//! Frees VMIDs whose quarantine is over, after a second look has found them absent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proximity_domain::host::Event as HostEvent;
use proximity_domain::lease::{Command, Event, Lease};
use proximity_domain::{ClusterName, HostId, LeaseKey, Vmid};
use proximity_eventstore::Recorded;
use tokio_util::sync::CancellationToken;

use super::work::Env;
use crate::actor::Actor;
use crate::clock::Micros;
use crate::ports::{HypervisorError, TaskState};

/// How long after a look that decided nothing the next one follows.
const AGAIN: Duration = Duration::from_secs(60);

/// What the log says is quarantined, and through which host each cluster is reached.
#[derive(Default)]
pub(super) struct Quarantine {
    waiting: BTreeMap<String, Waiting>,
    hosts: BTreeMap<ClusterName, HostId>,
}

struct Waiting {
    cluster: ClusterName,
    vmid: Vmid,
    until: Micros,
    looked: Option<Instant>,
}

impl Quarantine {
    /// Takes note of one event.
    pub(super) fn follow(&mut self, event: &Recorded) {
        match event.aggregate_type.as_str() {
            "lease" => self.follow_lease(event),
            "host" if event.event_type == "host.registered" => {
                let id = event.aggregate_id.parse::<HostId>();
                let registered = serde_json::from_str::<HostEvent>(&event.payload);
                if let (Ok(id), Ok(HostEvent::Registered { cluster, .. })) = (id, registered) {
                    self.hosts.insert(cluster, id);
                }
            }
            _ => {}
        }
    }

    fn follow_lease(&mut self, event: &Recorded) {
        if event.event_type != "lease.quarantined" {
            self.waiting.remove(&event.aggregate_id);
            return;
        }
        let key = event.aggregate_id.parse::<LeaseKey>();
        let stored = serde_json::from_str::<Event>(&event.payload);
        if let (Ok(LeaseKey::Vmid(cluster, vmid)), Ok(Event::Quarantined { until, .. })) =
            (key, stored)
        {
            let waiting = Waiting { cluster, vmid, until, looked: None };
            self.waiting.insert(event.aggregate_id.clone(), waiting);
        }
    }

    /// Looks at those whose time is over.
    pub(super) async fn sweep(&mut self, env: &Env, stopping: &CancellationToken) {
        let now = env.clock.now();
        let due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.until <= now && w.looked.is_none_or(|at| at.elapsed() > AGAIN))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if stopping.is_cancelled() {
                return;
            }
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            waiting.looked = Some(Instant::now());
            let Some(host) = self.hosts.get(&waiting.cluster) else { continue };
            match look(env, *host, waiting.vmid).await {
                Ok(Some(command)) => settle(env, &key, command).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::info!(key, %error, "a quarantined number cannot be looked at")
                }
            }
        }
    }
}

/// `None`: nothing can be concluded now.
async fn look(env: &Env, host: HostId, vmid: Vmid) -> Result<Option<Command>, HypervisorError> {
    let hypervisor = env.hypervisors.of(host).await?;
    if !hypervisor.identity().await?.quorate {
        return Ok(None);
    }
    let tasks = hypervisor.tasks_of(vmid).await?;
    if tasks.iter().any(|task| task.state == TaskState::Running) {
        return Ok(None);
    }
    Ok(Some(if hypervisor.vmid_is_free(vmid).await? {
        Command::Clear { now: env.clock.now() }
    } else {
        Command::FindForeign { reason: "another guest was made under it".to_owned() }
    }))
}

/// Stored at the sequence that is read now; a conflict means that someone else has decided.
async fn settle(env: &Env, key: &str, command: Command) {
    let meta = Actor::system("quarantine").metadata("lease.clear");
    let mut unit = env.outcome(meta, None);
    let applied = unit.apply::<Lease>(key, command).await;
    match applied {
        Ok(0) => {}
        Ok(_) => {
            if let Err(error) = unit.commit().await {
                tracing::info!(key, %error, "a quarantine was not ended now");
            }
        }
        Err(refused) => tracing::info!(key, ?refused, "a quarantine was not ended now"),
    }
}
