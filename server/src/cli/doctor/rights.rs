//! Which privileges of the documented role a host's credential lacks, and what does not work without.

use std::collections::BTreeMap;

use proximity_commands::ports::{Hypervisor, HypervisorError, Node, Storage};

/// Where a privilege is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On all guests, those to come included.
    Guests,
    /// On the cluster itself.
    Root,
    /// On each node.
    Nodes,
    /// On each storage that has one of these contents.
    Storages(&'static [&'static str]),
    /// On the bridge that deployments use.
    Bridge,
}

/// A privilege of the role, where it is needed, and what does not work without it.
struct Need {
    privilege: &'static str,
    place: Place,
    without: &'static str,
}

macro_rules! needs {
    ($($privilege:literal $place:expr => $without:literal;)*) => {
        &[$(Need { privilege: $privilege, place: $place, without: $without }),*]
    };
}

/// The role that docs/OPERATING.md describes, privilege by privilege.
static NEEDS: &[Need] = needs! {
    "Sys.Audit" Place::Root => "the cluster, its nodes and its tasks are not seen: nothing works";
    "Sys.Audit" Place::Nodes => "the node's state and tasks are not seen: nothing works there";
    "VM.Audit" Place::Guests => "containers are not seen: nothing can be deployed, started, stopped, adopted or looked after";
    "VM.Allocate" Place::Guests => "containers can be neither made nor removed";
    "VM.Config.Options" Place::Guests => "containers cannot be marked as ours: nothing can be deployed, cloned or adopted";
    "VM.Config.CPU" Place::Guests => "the cores of containers cannot be set: nothing can be deployed";
    "VM.Config.Memory" Place::Guests => "the memory of containers cannot be set: nothing can be deployed";
    "VM.Config.Disk" Place::Guests => "the root disks of containers cannot be set: nothing can be deployed";
    "VM.Config.Network" Place::Guests => "containers get no network: nothing can be deployed or cloned";
    "VM.PowerMgmt" Place::Guests => "nothing can be started, stopped or restarted, and so neither deployed nor removed";
    "VM.Clone" Place::Guests => "applications cannot be cloned";
    "VM.Snapshot" Place::Guests => "applications cannot be cloned while they run";
    "VM.Backup" Place::Guests => "backups can be neither made nor found nor removed";
    "Datastore.Audit" Place::Storages(&["rootdir", "vztmpl", "backup"]) => "its free space may not be known, so that it is not chosen, and disks that a broken-off creation has left there are seen by nobody";
    "Datastore.AllocateSpace" Place::Storages(&["rootdir", "backup"]) => "neither root disks nor backups can be put there";
    "Datastore.AllocateTemplate" Place::Storages(&["vztmpl"]) => "templates and images cannot be downloaded to it";
    "SDN.Use" Place::Bridge => "containers cannot join it: nothing can be deployed";
    "Sys.AccessNetwork" Place::Nodes => "images of applications cannot be pulled there";
};

/// What the role leaves out, since it allows more than it is wanted for.
static EXTRAS: &[Need] = needs! {
    "Datastore.Allocate" Place::Storages(&["rootdir"]) => "disks that a creation leaves there when it is broken off are named for `pvesm free` instead of removed; it also allows the removal of every other volume there";
};

/// What a credential lacks, a sentence each.
pub(super) struct Missing {
    pub(super) needed: Vec<String>,
    /// Not of the role: nobody has to give it.
    pub(super) extra: Vec<String>,
    /// How many privileges of the role were looked at.
    pub(super) looked_at: usize,
}

/// All that is missing.
pub(super) async fn missing(
    hypervisor: &dyn Hypervisor,
    bridge: &str,
) -> Result<Missing, HypervisorError> {
    // A list that the credential may not read says less, and what it lacks is said first.
    let nodes = hypervisor.nodes().await.unwrap_or_default();
    let storages = storages(hypervisor, &nodes).await;
    let mut known: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let mut missing = Missing { needed: Vec::new(), extra: Vec::new(), looked_at: 0 };
    let needs = NEEDS.iter().map(|need| (need, true));
    for (need, is_needed) in needs.chain(EXTRAS.iter().map(|need| (need, false))) {
        for path in paths(need.place, &nodes, &storages, bridge) {
            if !known.contains_key(&path) {
                known.insert(path.clone(), hypervisor.privileges(&path).await?);
            }
            missing.looked_at += usize::from(is_needed);
            let has = known.get(&path).and_then(|rights| rights.get(need.privilege));
            // Guests are below the path that is asked about; the others are that path.
            let enough = match need.place {
                Place::Guests => has == Some(&true),
                Place::Root | Place::Nodes | Place::Storages(_) | Place::Bridge => has.is_some(),
            };
            if !enough {
                let said = format!("{} is missing on {path}: {}", need.privilege, need.without);
                if is_needed {
                    missing.needed.push(said);
                } else {
                    missing.extra.push(said);
                }
            }
        }
    }
    Ok(missing)
}

async fn storages(hypervisor: &dyn Hypervisor, nodes: &[Node]) -> Vec<Storage> {
    let mut storages: Vec<Storage> = Vec::new();
    for node in nodes.iter().filter(|node| node.online) {
        for storage in hypervisor.storages(&node.name).await.unwrap_or_default() {
            if !storages.iter().any(|known| known.name == storage.name) {
                storages.push(storage);
            }
        }
    }
    storages
}

fn paths(place: Place, nodes: &[Node], storages: &[Storage], bridge: &str) -> Vec<String> {
    let or_all = |paths: Vec<String>, all: &str| {
        if paths.is_empty() { vec![all.to_owned()] } else { paths }
    };
    match place {
        Place::Guests => vec!["/vms".to_owned()],
        Place::Root => vec!["/".to_owned()],
        Place::Nodes => {
            or_all(nodes.iter().map(|node| format!("/nodes/{}", node.name)).collect(), "/nodes")
        }
        Place::Storages(contents) => {
            let fits = |storage: &&Storage| {
                storage.content.iter().any(|content| contents.contains(&content.as_str()))
            };
            let paths = storages.iter().filter(fits).map(|one| format!("/storage/{}", one.name));
            or_all(paths.collect(), "/storage")
        }
        Place::Bridge => vec![format!("/sdn/zones/localnetwork/{bridge}")],
    }
}
