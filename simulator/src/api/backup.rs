//! Backups: one job per node at a time, errors that only the log explains, and the archive's contents.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;

use super::lxc::{existing, existing_mut, storages_can};
use super::snapshot::unlock_unless_dead;
use crate::auth::Auth;
use crate::config::StorageKind;
use crate::gate::rights_in;
use crate::params::formats::split_list;
use crate::params::property::{self, MOUNT_POINT};
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Failure, Sim, TaskContext};
use crate::world::World;
use crate::world::container::{Config, is_mount};
use crate::world::raw;
use crate::world::retention::Retention;
use crate::world::storage::{Archive, Volume, file_path, split_volid};

/// What a backup job was asked.
struct Job {
    auth: Auth,
    node: String,
    vmids: Vec<u32>,
    storage: String,
    mode: String,
    extension: &'static str,
    notes: Option<String>,
    protected: bool,
    /// Minutes.
    lockwait: u64,
    /// The job's own retention, instead of the storage's.
    retention: Option<Retention>,
    /// Whether it prunes.
    remove: bool,
}

/// Nearly everything that can go wrong shows only in the task.
pub(crate) async fn create(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let params = &call.params;
    let vmids: Vec<u32> = split_list(params.get("vmid").unwrap_or_default())
        .filter_map(|vmid| vmid.parse().ok())
        .collect();
    let all = params.flag("all");
    if vmids.is_empty() && !all {
        let text = "property is missing and it is not optional";
        return Err(Refusal::parameter("vmid", text));
    }
    for name in ["tmpdir", "dumpdir", "script", "job-id"] {
        if params.get(name).is_some() && !call.auth.is_root() {
            let text = "Only root may set this option.";
            return Err(Refusal::parameter(name, text));
        }
    }
    let node = call.node().to_owned();
    let storage = params.get("storage").unwrap_or("local").to_owned();
    let retention = match params.get("prune-backups") {
        None => None,
        Some(text) => {
            sim.require(
                &call.auth,
                &format!("/storage/{storage}"),
                &["Datastore.Allocate"],
                false,
            )?;
            let wrong = || Refusal::parameter("prune-backups", "invalid format");
            Some(Retention::parse(text).ok_or_else(wrong)?)
        }
    };
    let vmids: Vec<u32> = if all {
        let world = sim.world();
        world.containers.values().filter(|c| c.node == node).map(|c| c.vmid).collect()
    } else {
        let world = sim.world();
        let elsewhere = |vmid: &u32| world.containers.get(vmid).is_some_and(|c| c.node != node);
        vmids.into_iter().filter(|vmid| !elsewhere(vmid)).collect()
    };
    // Guests of other nodes are passed over in silence; unknown ones fail in the task.
    if vmids.is_empty() && !all {
        return Reply::data(json!("OK"));
    }
    let id = match (&vmids[..], all) {
        ([vmid], false) => vmid.to_string(),
        _ => String::new(),
    };
    let job = Job {
        auth: call.auth.clone(),
        node: node.clone(),
        vmids,
        storage,
        retention,
        remove: params.get("remove").is_none_or(|remove| remove == "1"),
        mode: params.get("mode").unwrap_or("snapshot").to_owned(),
        extension: match params.get("compress").unwrap_or("0") {
            "gzip" => "tar.gz",
            "1" | "lzo" => "tar.lzo",
            "zstd" => "tar.zst",
            _ => "tar",
        },
        notes: params.get("notes-template").map(str::to_owned),
        protected: params.flag("protected"),
        lockwait: params.number("lockwait").unwrap_or(180),
    };
    let upid = sim.start_task(&call, &node, "vzdump", &id, |task| work(task, job));
    Reply::data(json!(upid))
}

async fn work(task: TaskContext, job: Job) -> Result<(), Failure> {
    for vmid in &job.vmids {
        let path = format!("/vms/{vmid}");
        let rights = rights_in(&task.sim.world(), &job.auth, &path);
        if !rights.contains("VM.Backup") {
            return Err(Refusal::forbidden(format!("{path}, VM.Backup")).into());
        }
    }
    check_storage(&task.sim, &job)?;
    let Some(only_one) = task.sim.dump_locks.get(&job.node).cloned() else {
        return Err("no such node".into());
    };
    let patience = Duration::from_secs(job.lockwait * 60);
    let Ok(_one) =
        task.interruptible(tokio::time::timeout(patience, only_one.lock_owned())).await?
    else {
        task.log(format!(
            "ERROR: can't acquire lock '/var/run/vzdump.lock' (wait = {})",
            job.lockwait
        ));
        return Err(Failure::Died);
    };
    task.log(format!(
        "INFO: starting new backup job: vzdump --storage {} --mode {} --node {}",
        job.storage, job.mode, job.node
    ));
    let mut failed = false;
    for vmid in &job.vmids {
        match guest(&task, &job, *vmid).await {
            Ok(()) => {}
            Err(Failure::Died) => return Err(Failure::Died),
            Err(Failure::Error(text)) => {
                task.log(format!("ERROR: Backup of VM {vmid} failed - {text}"));
                failed = true;
            }
        }
    }
    if failed {
        task.log("INFO: Backup job finished with errors");
        return Err("job errors".into());
    }
    task.log("INFO: Backup job finished successfully");
    Ok(())
}

fn check_storage(sim: &Sim, job: &Job) -> Result<(), Failure> {
    let world = sim.world();
    let storage = &job.storage;
    let prefix = format!("could not get storage information for '{storage}':");
    let Ok(store) = super::storage::store(&world, &job.node, storage) else {
        return Err(Failure::Error(format!("{prefix} storage '{storage}' does not exist")));
    };
    if !store.takes("backup") {
        return Err(Failure::Error(format!(
            "{prefix} can't use storage '{storage}' for backups - wrong content type"
        )));
    }
    Ok(())
}

/// Backs one guest up under its locks.
async fn guest(task: &TaskContext, job: &Job, vmid: u32) -> Result<(), Failure> {
    if task.sim.world().container(&job.node, vmid).is_none() {
        return Err(Failure::Error(format!("unable to find VM '{vmid}'")));
    }
    check_limit(task, job, vmid)?;
    task.log(format!("INFO: Starting Backup of VM {vmid} (lxc)"));
    let lock = task.flock(vmid).await?;
    let mode = begin(task, job, vmid)?;
    drop(lock);
    let done = task.labour().await;
    unlock_unless_dead(&task.sim, &job.node, vmid, done)?;
    let volid = store_archive(task, job, vmid)?;
    task.log(format!("INFO: creating vzdump archive '{}'", file_path(&volid)));
    task.log("INFO: Total bytes written: 2140160 (2.1MiB, 116MiB/s)");
    task.log("INFO: archive file size: 1MB");
    if mode == "stop" {
        task.log("INFO: guest is online again after <1 seconds");
    }
    if job.remove {
        prune(task, job, vmid);
    }
    task.log(format!("INFO: Finished Backup of VM {vmid} (00:00:01)"));
    Ok(())
}

/// What the job keeps: by its own words, else by the storage's.
fn retention(world: &World, job: &Job) -> Option<Retention> {
    let store = super::storage::store(world, &job.node, &job.storage).ok();
    job.retention.clone().or_else(|| store?.retention.clone())
}

/// The volume ids of a guest's backups that nobody protects, the oldest first.
fn prunable(world: &World, job: &Job, vmid: u32) -> Vec<String> {
    let Ok(store) = super::storage::store(world, &job.node, &job.storage) else {
        return Vec::new();
    };
    let mut found: Vec<(&Volume, &String)> = store
        .volumes
        .iter()
        .filter(|(_, v)| v.content == "backup" && v.vmid == Some(vmid) && !v.protected)
        .map(|(volid, volume)| (volume, volid))
        .collect();
    found.sort_by_key(|(volume, _)| volume.ctime);
    found.into_iter().map(|(_, volid)| volid.clone()).collect()
}

/// A job that does not prune is refused before it would exceed what is kept.
fn check_limit(task: &TaskContext, job: &Job, vmid: u32) -> Result<(), Failure> {
    let world = task.sim.world();
    let limit = retention(&world, job).and_then(|retention| retention.limit());
    match limit {
        Some(limit)
            if !job.remove && !job.protected && prunable(&world, job, vmid).len() >= limit =>
        {
            Err(Failure::Error(format!(
                "There is a max backup limit of {limit} enforced by the target storage or the \
                 vzdump parameters. Either increase the limit or delete old backups."
            )))
        }
        _ => Ok(()),
    }
}

/// Removes what `keep-last` does not keep; with other rules beside it, nothing.
fn prune(task: &TaskContext, job: &Job, vmid: u32) {
    let mut world = task.sim.world();
    let Some(newest) = retention(&world, job).and_then(|retention| retention.newest()) else {
        return;
    };
    let backups = prunable(&world, job, vmid);
    let surplus = backups.len().saturating_sub(newest);
    for volid in &backups[..surplus] {
        let node = world.nodes.get_mut(&job.node);
        if let Some(store) = node.and_then(|node| node.stores.get_mut(&job.storage)) {
            store.volumes.remove(volid);
        }
        let what = "volume.deleted";
        task.sim.record(&mut world, &job.auth, &job.node, what, Some(vmid), Some(volid));
    }
}

/// What a job without words of its own does on a storage.
pub(crate) async fn defaults(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.get("storage").unwrap_or("local").to_owned();
    let rights = ["Datastore.Audit", "Datastore.AllocateSpace"];
    sim.require(&call.auth, &format!("/storage/{name}"), &rights, true)?;
    let world = sim.world();
    let store = super::storage::store(&world, call.node(), &name)?;
    let mut data = json!({
        "storage": name, "mode": "snapshot", "compress": "0", "lockwait": 180, "remove": 1,
        "dumpdir": format!("/var/lib/{name}/dump"),
    });
    if let Some(retention) = &store.retention {
        data["prune-backups"] = json!(retention.text());
    }
    Reply::data(data)
}

/// Locks the guest and settles the mode: only some storages take snapshots, and a stopped one needs none.
fn begin(task: &TaskContext, job: &Job, vmid: u32) -> Result<String, Failure> {
    let mut world = task.sim.world();
    let can = storages_can(&world, existing(&world, &job.node, vmid)?, StorageKind::snapshots);
    let container = existing_mut(&mut world, &job.node, vmid)?;
    container.check_lock()?;
    container.config.insert("lock".to_owned(), "backup".to_owned());
    let running = container.running.is_some();
    let name = container.name();
    let mounts = mounts(&container.config);
    drop(world);
    let mode = match job.mode.as_str() {
        _ if !running => "stop",
        "snapshot" if !can => {
            task.log("INFO: mode failure - some volumes do not support snapshots");
            task.log("INFO: trying 'suspend' mode instead");
            "suspend"
        }
        mode => mode,
    };
    task.log(format!("INFO: status = {}", if running { "running" } else { "stopped" }));
    task.log(format!("INFO: backup mode: {mode}"));
    task.log(format!("INFO: CT Name: {name}"));
    mounts.into_iter().for_each(|line| task.log(line));
    Ok(mode.to_owned())
}

/// What the log says of each mount: only volumes are stored, and beside the root only those that say so.
fn mounts(config: &Config) -> Vec<String> {
    let line = |(key, value): (&String, &String)| {
        let members = property::parse(MOUNT_POINT, value).ok()?;
        let path = members.get("mp").map_or("/", String::as_str);
        let volume = members.get("volume").map_or("", String::as_str);
        let is_wanted = members.get("backup").is_some_and(|wanted| wanted == "1");
        Some(if key == "rootfs" || split_volid(volume).is_some() && is_wanted {
            format!("INFO: including mount point {key} ('{path}') in backup")
        } else if split_volid(volume).is_some() {
            format!("INFO: excluding volume mount point {key} ('{path}') from backup (disabled)")
        } else {
            let kind = if volume.starts_with("/dev/") { "device" } else { "bind" };
            format!(
                "INFO: excluding {kind} mount point {key} ('{path}') from backup (not a volume)"
            )
        })
    };
    let mounted = |key: &str| is_mount(key) && !key.starts_with("unused");
    // The root comes first.
    let (roots, others): (Vec<_>, Vec<_>) =
        config.iter().filter(|(key, _)| mounted(key)).partition(|(key, _)| *key == "rootfs");
    roots.into_iter().chain(others).filter_map(line).collect()
}

fn store_archive(task: &TaskContext, job: &Job, vmid: u32) -> Result<String, Failure> {
    let mut world = task.sim.world();
    let container = existing(&world, &job.node, vmid)?;
    let archive = Archive::of(container);
    let name = container.name();
    let notes = job.notes.as_ref().map(|template| {
        template
            .replace("{{guestname}}", &name)
            .replace("{{vmid}}", &vmid.to_string())
            .replace("{{node}}", &job.node)
            .replace("{{cluster}}", task.sim.config.cluster.as_deref().unwrap_or("standalone node"))
            .replace("\\n", "\n")
            .replace("\\\\", "\\")
    });
    let mut now = task.sim.now();
    let Some(store) =
        world.nodes.get_mut(&job.node).and_then(|node| node.stores.get_mut(&job.storage))
    else {
        return Err(super::storage::no_storage(&job.storage).into());
    };
    // Names hold the second; a second backup within it has to wait for the next.
    let mut volid = volid(&job.storage, vmid, now, job.extension);
    while store.volumes.contains_key(&volid) {
        now += 1;
        volid = self::volid(&job.storage, vmid, now, job.extension);
    }
    let volume = Volume {
        notes,
        protected: job.protected,
        ..Volume::backup(vmid, job.extension, now, archive)
    };
    if store.avail() < volume.size {
        let tar = "set -o pipefail && lxc-usernsexec -- tar cpf - --totals --sparse | zstd";
        return Err(Failure::Error(format!(
            "command '{tar}' failed: exit code 70: No space left on device"
        )));
    }
    store.volumes.insert(volid.clone(), volume);
    task.sim.record(&mut world, &job.auth, &job.node, "backup.created", Some(vmid), Some(&volid));
    Ok(volid)
}

fn volid(storage: &str, vmid: u32, at: i64, extension: &str) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{storage}:backup/vzdump-lxc-{vmid}-{:04}_{:02}_{:02}-{:02}_{:02}_{:02}.{extension}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// The configuration inside a backup, as its file reads.
pub(crate) async fn extract_config(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let volid = call.params.text("volume");
    let world = sim.world();
    let storage = split_volid(volid).map_or("", |(storage, _)| storage);
    let volume = super::storage::store(&world, call.node(), storage)?.volumes.get(volid);
    let Some(archive) = volume.and_then(|volume| volume.archive.as_deref()) else {
        return Err(Refusal::die(format!("volume '{volid}' does not exist")));
    };
    if let Some(vmid) = volume.and_then(|volume| volume.vmid) {
        require_backup(&world, &call, vmid)?;
    }
    Reply::data(json!(raw::text(&archive.config)))
}

fn require_backup(world: &crate::world::World, call: &Call, vmid: u32) -> Result<(), Refusal> {
    let path = format!("/vms/{vmid}");
    if rights_in(world, &call.auth, &path).contains("VM.Backup") {
        return Ok(());
    }
    Err(Refusal::forbidden(format!("{path}, VM.Backup")))
}
