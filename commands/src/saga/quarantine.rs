//! Frees VMIDs whose quarantine is over, after a second look has found them absent and without archives.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proximity_domain::backup::Event as BackupEvent;
use proximity_domain::host::Event as HostEvent;
use proximity_domain::lease::{Command, Event, Lease};
use proximity_domain::{ClusterName, HostId, LeaseKey, Vmid};
use proximity_eventstore::Recorded;
use tokio_util::sync::CancellationToken;

use super::work::Env;
use crate::actor::Actor;
use crate::clock::Micros;
use crate::ports::{Hypervisor, HypervisorError, TaskSummary};

/// How long after a look that decided nothing the next one follows.
const AGAIN: Duration = Duration::from_secs(60);
/// The same when archives keep the number: whoever restored one by its number would meet another guest.
const AGAIN_ARCHIVED: Duration = Duration::from_secs(15 * 60);

/// What the log says is quarantined, and through which host each cluster is reached.
#[derive(Default)]
pub(super) struct Quarantine {
    waiting: BTreeMap<String, Waiting>,
    hosts: BTreeMap<ClusterName, HostId>,
    /// Backups that may have an archive, by the number of the guest that they are of.
    backups: BTreeMap<LeaseKey, BTreeSet<String>>,
}

struct Waiting {
    cluster: ClusterName,
    vmid: Vmid,
    until: Micros,
    /// Not looked at before this moment.
    not_before: Option<Instant>,
}

/// Numbers of which a host's storages hold archives, read once a sweep.
type Archives = BTreeMap<HostId, BTreeSet<Vmid>>;

/// What a look came to.
enum Look {
    Decided(Command),
    /// Nothing can be concluded now.
    Undecided,
    Archived,
}

impl Quarantine {
    /// Takes note of one event.
    pub(super) fn follow(&mut self, event: &Recorded) {
        match event.aggregate_type.as_str() {
            "lease" => self.follow_lease(event),
            "backup" => self.follow_backup(event),
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
            let waiting = Waiting { cluster, vmid, until, not_before: None };
            self.waiting.insert(event.aggregate_id.clone(), waiting);
        }
    }

    fn follow_backup(&mut self, event: &Recorded) {
        let id = &event.aggregate_id;
        match serde_json::from_str::<BackupEvent>(&event.payload) {
            Ok(BackupEvent::Requested(requested)) => {
                let key = requested.guest.vmid_lease();
                self.backups.entry(key).or_default().insert(id.clone());
            }
            Ok(BackupEvent::Deleted { .. } | BackupEvent::Failed { absent: true, .. }) => {
                let last = self.backups.iter_mut().find_map(|(key, backups)| {
                    (backups.remove(id) && backups.is_empty()).then(|| key.clone())
                });
                let Some(key) = last else { return };
                if let Some(waiting) = self.waiting.get_mut(&key.to_string()) {
                    waiting.not_before = None;
                }
                self.backups.remove(&key);
            }
            _ => {}
        }
    }

    /// Looks at those whose time is over.
    pub(super) async fn sweep(&mut self, env: &Env, stopping: &CancellationToken) {
        let now = env.clock.now();
        let due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.until <= now && w.not_before.is_none_or(|at| at <= Instant::now()))
            .map(|(key, _)| key.clone())
            .collect();
        let mut archives = Archives::new();
        for key in due {
            if stopping.is_cancelled() {
                return;
            }
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            waiting.not_before = Some(Instant::now() + AGAIN);
            let Some(host) = self.hosts.get(&waiting.cluster) else { continue };
            let lease = LeaseKey::Vmid(waiting.cluster.clone(), waiting.vmid);
            let look = if self.backups.contains_key(&lease) {
                Ok(Look::Archived)
            } else {
                look(env, *host, waiting.vmid, &mut archives).await
            };
            match look {
                Ok(Look::Decided(command)) => settle(env, &key, command).await,
                Ok(Look::Undecided) => {}
                Ok(Look::Archived) => waiting.not_before = Some(Instant::now() + AGAIN_ARCHIVED),
                Err(error) => {
                    tracing::info!(key, %error, "a quarantined number cannot be looked at")
                }
            }
        }
    }
}

async fn look(
    env: &Env,
    host: HostId,
    vmid: Vmid,
    archives: &mut Archives,
) -> Result<Look, HypervisorError> {
    let hypervisor = env.hypervisors.of(host).await?;
    if !hypervisor.identity().await?.quorate {
        return Ok(Look::Undecided);
    }
    let tasks = hypervisor.tasks_of(vmid).await?;
    if tasks.iter().any(TaskSummary::is_at_work) {
        return Ok(Look::Undecided);
    }
    if !hypervisor.vmid_is_free(vmid).await? {
        if is_only_a_lock(hypervisor.as_ref(), vmid).await? {
            // What is left of our own container is a person's to destroy, and no stranger.
            return Ok(Look::Undecided);
        }
        let reason = "another guest was made under it".to_owned();
        return Ok(Look::Decided(Command::FindForeign { reason }));
    }
    let archived = match archives.entry(host) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => match archived(hypervisor.as_ref()).await? {
            Some(archived) => unknown.insert(archived),
            None => return Ok(Look::Undecided),
        },
    };
    Ok(if archived.contains(&vmid) {
        Look::Archived
    } else {
        Look::Decided(Command::Clear { now: env.clock.now() })
    })
}

/// Whether nothing but the lock of a creation or a destruction stands under the number.
async fn is_only_a_lock(hypervisor: &dyn Hypervisor, vmid: Vmid) -> Result<bool, HypervisorError> {
    let guests = hypervisor.guests().await?;
    let Some(guest) = guests.iter().find(|guest| guest.vmid == vmid && guest.is_container) else {
        return Ok(false);
    };
    let config = hypervisor.config(&guest.node, vmid).await?;
    Ok(config.is_some_and(|config| config.is_only_a_lock()))
}

/// The numbers of all guests of which a storage holds an archive, whoever made it; `None` while a node
/// is away, whose own storages may hold some.
async fn archived(hypervisor: &dyn Hypervisor) -> Result<Option<BTreeSet<Vmid>>, HypervisorError> {
    let mut numbers = BTreeSet::new();
    for node in hypervisor.nodes().await? {
        if !node.online {
            return Ok(None);
        }
        for storage in hypervisor.storages(&node.name).await? {
            if storage.active && storage.content.iter().any(|kind| kind == "backup") {
                let listed = hypervisor.volumes(&node.name, &storage.name, "backup").await?;
                numbers.extend(listed.into_iter().filter_map(|volume| volume.vmid));
            }
        }
    }
    Ok(Some(numbers))
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
