//! The port to one Proxmox VE cluster: single calls, typed and validated, no policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use proximity_domain::{HostId, NodeName, Vmid};

use super::process::{ArchivedConfig, Process};
use super::types::*;
use super::usage::{Span, UsageSample};
use super::{NewCopy, NewRestored};

/// One registered host (a cluster or a lone node). Every call has a deadline of its own.
///
/// "Absent" is never an error: a guest that is not on the named node is `None`, and since a migrated
/// guest answers exactly like a missing one there, `None` alone concludes nothing.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Who this is: cluster name (or the lone node's identity), quorum and nodes. `GET /cluster/status`.
    async fn identity(&self) -> Result<ClusterIdentity, HypervisorError>;
    /// `GET /version`.
    async fn version(&self) -> Result<Version, HypervisorError>;
    /// All nodes with their figures; unknown figures are `None`. `GET /nodes`.
    async fn nodes(&self) -> Result<Vec<Node>, HypervisorError>;
    /// All guests of the cluster. `GET /cluster/resources?type=vm`.
    async fn guests(&self) -> Result<Vec<Guest>, HypervisorError>;
    /// What a container used over time, oldest first. `GET /nodes/{node}/lxc/{vmid}/rrddata`.
    async fn usage(
        &self,
        node: &NodeName,
        vmid: Vmid,
        span: Span,
    ) -> Result<Vec<UsageSample>, HypervisorError>;
    /// Whether the cluster holds no guest (of either kind) under this number. `GET /cluster/nextid?vmid=`.
    async fn vmid_is_free(&self, vmid: Vmid) -> Result<bool, HypervisorError>;
    /// Storages of a node with content kinds and free bytes. `GET /nodes/{node}/storage`.
    async fn storages(&self, node: &NodeName) -> Result<Vec<Storage>, HypervisorError>;
    /// How many backups of a guest a storage keeps by its own rules, such as `keep-last=3`; `None`: all.
    /// `GET /nodes/{node}/vzdump/defaults`.
    async fn retention(
        &self,
        node: &NodeName,
        storage: &str,
    ) -> Result<Option<String>, HypervisorError>;

    /// A container's configuration, as it is once every change of it that waits for the next start is
    /// made; `None` when this node has none under the number.
    async fn config(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError>;
    /// The same as it is until then: a mount point that is taken away from a container that runs is
    /// still in it.
    async fn current_config(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError>;
    /// A container's current state; `None` when this node has none under the number.
    async fn status(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestStatus>, HypervisorError>;
    /// IP addresses of a running container, loopback left out; empty while there are none.
    async fn addresses(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Vec<std::net::IpAddr>, HypervisorError>;

    /// Which of these names of volumes stand anywhere in the configuration of a guest, be it a virtual
    /// machine's, but in its notes: as it is, as it will be after its next start, or in one of its snapshots. `None` when this node has
    /// no such guest.
    async fn mentions(
        &self,
        guest: &Guest,
        words: &BTreeSet<String>,
    ) -> Result<Option<BTreeSet<String>>, HypervisorError>;

    /// Creates a container, stopped. `HypervisorError::VmidTaken` when the number is in use.
    async fn create(&self, node: &NodeName, guest: &NewGuest) -> Result<Upid, HypervisorError>;
    /// Gives an image's container its entrypoint and environment, before its first start: a creation
    /// takes both from the image, whatever it was told, and a restore by an API token drops the
    /// environment. Variables stand over those of the same names in `config`; the others stay. Sends nothing when `config` has it all already, and sets
    /// nothing when the configuration changed since (`DigestMismatch`).
    async fn set_process(
        &self,
        node: &NodeName,
        vmid: Vmid,
        process: &Process,
        config: &GuestConfig,
    ) -> Result<(), HypervisorError>;
    /// Starts it. `HypervisorError::AlreadySo` when it runs.
    async fn start(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError>;
    /// Cuts its power. `AlreadySo` when it is stopped.
    async fn stop(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError>;
    /// Asks it to end within `timeout_s` seconds; the task fails when it does not. `AlreadySo` when stopped.
    async fn shutdown(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError>;
    /// Restarts it gracefully within `timeout_s` seconds.
    async fn reboot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError>;
    /// Sets the protection flag, only if the config still has this digest.
    async fn set_protection(
        &self,
        node: &NodeName,
        vmid: Vmid,
        on: bool,
        digest: &str,
    ) -> Result<(), HypervisorError>;
    /// Sets the description, only if the config still has this digest.
    async fn set_description(
        &self,
        node: &NodeName,
        vmid: Vmid,
        text: &str,
        digest: &str,
    ) -> Result<(), HypervisorError>;
    /// Destroys a stopped container and its disks (`purge`, never `force`).
    async fn destroy(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError>;

    /// The privileges of this credential on a path such as `/vms`, and whether each holds for what is
    /// below it as well. `GET /access/permissions?path=`.
    async fn privileges(&self, path: &str) -> Result<BTreeMap<String, bool>, HypervisorError>;
    /// Whether lists of guests are complete for this credential: without the right to audit all of
    /// them Proxmox leaves some or all out, and says nothing.
    async fn sees_all_guests(&self) -> Result<bool, HypervisorError> {
        Ok(self.privileges("/vms").await?.get("VM.Audit") == Some(&true))
    }
    /// Whether all disks of a container are on storages that have snapshots.
    async fn can_snapshot(&self, node: &NodeName, vmid: Vmid) -> Result<bool, HypervisorError>;
    /// Names of a container's snapshots.
    async fn snapshots(&self, node: &NodeName, vmid: Vmid) -> Result<Vec<String>, HypervisorError>;
    /// Takes a snapshot; a name that is used already fails in the task.
    async fn create_snapshot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        name: &str,
    ) -> Result<Upid, HypervisorError>;
    /// Removes a snapshot; one that is not there fails in the task.
    async fn delete_snapshot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        name: &str,
    ) -> Result<Upid, HypervisorError>;
    /// Copies a container in full, onto its own storages. The task is the source's. `VmidTaken` when
    /// the copy's number is in use.
    async fn copy(
        &self,
        node: &NodeName,
        source: Vmid,
        copy: &NewCopy,
    ) -> Result<Upid, HypervisorError>;
    /// Makes a container from an archive, stopped. `VmidTaken` when the number is in use, unless the
    /// container there is to be overwritten. `POST /nodes/{node}/lxc` with `restore=1`.
    async fn restore(
        &self,
        node: &NodeName,
        restored: &NewRestored,
    ) -> Result<Upid, HypervisorError>;
    /// What the configuration in an archive says; its process is as it was when the archive was made,
    /// the image's own variables among it. `GET /nodes/{node}/vzdump/extractconfig`.
    async fn archived(
        &self,
        node: &NodeName,
        archive: &str,
    ) -> Result<ArchivedConfig, HypervisorError>;
    /// Sets interfaces (`net0` to `net31`) and the protection flag, only if the config still has this
    /// digest.
    async fn set_networks(
        &self,
        node: &NodeName,
        vmid: Vmid,
        nets: &BTreeMap<String, String>,
        digest: &str,
    ) -> Result<(), HypervisorError>;

    /// How a task stands; `None` when Proxmox has forgotten it.
    async fn task(&self, task: &Upid) -> Result<Option<TaskState>, HypervisorError>;
    /// Asks a task to end; asking one that has ended is no error. `DELETE /nodes/{node}/tasks/{upid}`.
    async fn abort_task(&self, task: &Upid) -> Result<(), HypervisorError>;
    /// The last lines of a task's log (at most `lines`).
    async fn task_log(&self, task: &Upid, lines: u32) -> Result<Vec<String>, HypervisorError>;
    /// Tasks about this number on any node of the cluster: active ones and those that ended.
    /// A node that cannot be asked is an error, since an empty answer would conclude too much; only one
    /// that the cluster has lost is left out ([`ClusterIdentity::has_lost`]).
    async fn tasks_of(&self, vmid: Vmid) -> Result<Vec<TaskSummary>, HypervisorError>;

    /// Files of one content kind on a storage (`vztmpl`, `backup`).
    async fn volumes(
        &self,
        node: &NodeName,
        storage: &str,
        content: &str,
    ) -> Result<Vec<Volume>, HypervisorError>;
    /// Stores a container as an archive; nearly everything that can go wrong shows only in the task.
    /// `NoGuest`: the container is on another node, and nothing was started.
    /// `POST /nodes/{node}/vzdump`.
    async fn back_up(&self, node: &NodeName, backup: &NewBackup) -> Result<Upid, HypervisorError>;
    /// Removes a volume; one that is not there is removed as well. `None`: it was done at once.
    /// `DELETE /nodes/{node}/storage/{storage}/content/{volume}`.
    async fn delete_volume(
        &self,
        node: &NodeName,
        storage: &str,
        volume: &str,
    ) -> Result<Option<Upid>, HypervisorError>;
    /// Templates that can be downloaded. `GET /nodes/{node}/aplinfo`.
    async fn appliances(&self, node: &NodeName) -> Result<Vec<Appliance>, HypervisorError>;
    /// Downloads a listed template into a storage.
    async fn download_appliance(
        &self,
        node: &NodeName,
        storage: &str,
        template: &str,
    ) -> Result<Upid, HypervisorError>;
    /// Pulls an OCI image as an archive `file_name` (without ending) into a storage (Proxmox VE 9.1 and later).
    /// `AlreadySo` when the file is there.
    async fn pull_oci_image(
        &self,
        node: &NodeName,
        storage: &str,
        reference: &str,
        file_name: &str,
    ) -> Result<Upid, HypervisorError>;
}

/// Finds the adapter for a registered host; it re-reads connection and credential when they change.
#[async_trait]
pub trait Hypervisors: Send + Sync {
    /// `HypervisorError::Permanent` when no such host is registered or it is suspended.
    async fn of(&self, host: HostId) -> Result<Arc<dyn Hypervisor>, HypervisorError>;
}
