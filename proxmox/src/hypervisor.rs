//! The port `Hypervisor`: which request each of its calls is, and what its answer means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use proximity_commands::ports::*;
use proximity_domain::{NodeName, Vmid};
use serde_json::Value;

use crate::client::PveClient;
use crate::request::{Request, call};
use crate::row::malformed;
use crate::{archived, copy, create, decode, identity, oci, request, rights, upid, usage};

impl PveClient {
    pub(crate) async fn read(&self, request: &Request) -> Result<Value, HypervisorError> {
        self.send(request).await.map(|answer| answer.data)
    }

    /// A write that starts a task on `node`; about `vmid`, if about a guest.
    async fn task_for(
        &self,
        request: &Request,
        node: &NodeName,
        vmid: Option<Vmid>,
    ) -> Result<Upid, HypervisorError> {
        let data = self.read(request).await?;
        Self::task_in(request.call, &data, node, vmid)
    }

    fn task_in(
        call: &'static str,
        data: &Value,
        node: &NodeName,
        vmid: Option<Vmid>,
    ) -> Result<Upid, HypervisorError> {
        let upid = decode::upid(call, data)?;
        let expected = upid::parse(&upid).is_some_and(|parts| {
            parts.node == *node && vmid.is_none_or(|vmid| parts.id == vmid.to_string())
        });
        if expected {
            Ok(upid)
        } else {
            let reason = "unexpected reply: the task of something else".to_owned();
            Err(HypervisorError::Unknown { call, reason: reason.into() })
        }
    }

    /// A write that is done when it answers. Its data is null; what else it says has no meaning.
    async fn done(&self, request: &Request) -> Result<(), HypervisorError> {
        self.send(request).await.map(drop)
    }

    async fn log_page(
        &self,
        node: &NodeName,
        task: &Upid,
        start: u64,
        lines: u32,
    ) -> Result<(Vec<String>, Option<u64>), HypervisorError> {
        let request = request::task_log(node, task, start, u64::from(lines));
        let answer = self.send(&request).await?;
        Ok((decode::log_lines(&answer.data)?, answer.total))
    }
}

/// What is absent is `None`.
fn if_there<T>(result: Result<T, HypervisorError>) -> Result<Option<T>, HypervisorError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(HypervisorError::NoGuest { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn forgotten(error: &HypervisorError) -> bool {
    matches!(error, HypervisorError::Permanent { reason, .. } if reason.says("no such task"))
}

/// The node that a task's id names; asking any other answers nothing useful.
fn node_of(call: &'static str, task: &Upid) -> Result<NodeName, HypervisorError> {
    match upid::parse(task) {
        Some(parts) => Ok(parts.node),
        None => Err(HypervisorError::Permanent { call, reason: "not a task id".into() }),
    }
}

#[async_trait]
impl Hypervisor for PveClient {
    async fn identity(&self) -> Result<ClusterIdentity, HypervisorError> {
        let answer = self.send(&request::cluster_status()).await?;
        identity::read(&answer.data, answer.certificate.as_deref())
    }

    async fn version(&self) -> Result<Version, HypervisorError> {
        decode::version(&self.read(&request::version()).await?)
    }

    async fn nodes(&self) -> Result<Vec<Node>, HypervisorError> {
        decode::nodes(&self.read(&request::nodes()).await?)
    }

    async fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        decode::guests(&self.read(&request::guests()).await?)
    }

    async fn usage(
        &self,
        node: &NodeName,
        vmid: Vmid,
        span: Span,
    ) -> Result<Vec<UsageSample>, HypervisorError> {
        usage::read(&self.read(&usage::request(node, vmid, span)).await?)
    }

    async fn vmid_is_free(&self, vmid: Vmid) -> Result<bool, HypervisorError> {
        match self.read(&request::nextid(vmid)).await {
            Ok(Value::String(text)) if text == vmid.to_string() => Ok(true),
            Ok(Value::Number(number)) if number.as_u64() == Some(vmid.get().into()) => Ok(true),
            Ok(_) => Err(malformed(call::NEXTID, "it is not the number that was asked about")),
            // 400 `vmid: VM 101 already exists`; any other refusal is one.
            Err(HypervisorError::Permanent { reason, .. })
                if reason.says(&format!(" {vmid} already exists")) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn storages(&self, node: &NodeName) -> Result<Vec<Storage>, HypervisorError> {
        decode::storages(&self.read(&request::storages(node)).await?)
    }

    async fn retention(
        &self,
        node: &NodeName,
        storage: &str,
    ) -> Result<Option<String>, HypervisorError> {
        decode::retention(&self.read(&request::backup_defaults(node, storage)).await?)
    }

    async fn config(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError> {
        let data = if_there(self.read(&request::config(node, vmid)).await)?;
        data.map(|data| decode::config(&data)).transpose()
    }

    async fn current_config(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError> {
        let data = if_there(self.read(&request::current_config(node, vmid)).await)?;
        data.map(|data| decode::config(&data)).transpose()
    }

    async fn status(
        &self,
        node: &NodeName,
        vmid: Vmid,
    ) -> Result<Option<GuestStatus>, HypervisorError> {
        let data = if_there(self.read(&request::status(node, vmid)).await)?;
        data.map(|data| decode::status(&data)).transpose()
    }

    async fn addresses(&self, node: &NodeName, vmid: Vmid) -> Result<Vec<IpAddr>, HypervisorError> {
        decode::addresses(&self.read(&request::interfaces(node, vmid)).await?)
    }

    async fn mentions(
        &self,
        guest: &Guest,
        words: &BTreeSet<String>,
    ) -> Result<Option<BTreeSet<String>>, HypervisorError> {
        if_there(self.look_through(guest, words).await)
    }

    async fn create(&self, node: &NodeName, guest: &NewGuest) -> Result<Upid, HypervisorError> {
        self.task_for(&create::request(node, guest)?, node, Some(guest.vmid)).await
    }

    async fn set_process(
        &self,
        node: &NodeName,
        vmid: Vmid,
        process: &Process,
        config: &GuestConfig,
    ) -> Result<(), HypervisorError> {
        match oci::process(node, vmid, process, config)? {
            Some(request) => self.done(&request).await,
            None => Ok(()),
        }
    }

    async fn start(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::start(node, vmid), node, Some(vmid)).await
    }

    async fn stop(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::stop(node, vmid), node, Some(vmid)).await
    }

    async fn shutdown(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::shutdown(node, vmid, timeout_s), node, Some(vmid)).await
    }

    async fn reboot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::reboot(node, vmid, timeout_s), node, Some(vmid)).await
    }

    async fn set_protection(
        &self,
        node: &NodeName,
        vmid: Vmid,
        on: bool,
        digest: &str,
    ) -> Result<(), HypervisorError> {
        self.done(&request::set_protection(node, vmid, on, digest)).await
    }

    async fn set_description(
        &self,
        node: &NodeName,
        vmid: Vmid,
        text: &str,
        digest: &str,
    ) -> Result<(), HypervisorError> {
        create::fits(call::SET_CONFIG, text)?;
        self.done(&request::set_description(node, vmid, text, digest)).await
    }

    async fn destroy(&self, node: &NodeName, vmid: Vmid) -> Result<Upid, HypervisorError> {
        self.task_for(&request::destroy(node, vmid), node, Some(vmid)).await
    }

    async fn privileges(&self, path: &str) -> Result<BTreeMap<String, bool>, HypervisorError> {
        rights::read(path, &self.read(&rights::permissions(path)).await?)
    }

    async fn can_snapshot(&self, node: &NodeName, vmid: Vmid) -> Result<bool, HypervisorError> {
        copy::has_feature(&self.read(&copy::feature(node, vmid)).await?)
    }

    async fn snapshots(&self, node: &NodeName, vmid: Vmid) -> Result<Vec<String>, HypervisorError> {
        copy::snapshot_names(&self.read(&copy::snapshots(node, vmid)).await?)
    }

    async fn create_snapshot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        name: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&copy::create_snapshot(node, vmid, name), node, Some(vmid)).await
    }

    async fn delete_snapshot(
        &self,
        node: &NodeName,
        vmid: Vmid,
        name: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&copy::delete_snapshot(node, vmid, name), node, Some(vmid)).await
    }

    async fn copy(
        &self,
        node: &NodeName,
        source: Vmid,
        copy: &NewCopy,
    ) -> Result<Upid, HypervisorError> {
        create::fits(call::CLONE, &copy.description)?;
        self.task_for(&copy::copy(node, source, copy), node, Some(source)).await
    }

    async fn restore(
        &self,
        node: &NodeName,
        restored: &NewRestored,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&create::restore(node, restored)?, node, Some(restored.vmid)).await
    }

    async fn archived(
        &self,
        node: &NodeName,
        archive: &str,
    ) -> Result<ArchivedConfig, HypervisorError> {
        archived::read(&self.read(&archived::request(node, archive)).await?)
    }

    async fn set_networks(
        &self,
        node: &NodeName,
        vmid: Vmid,
        nets: &BTreeMap<String, String>,
        digest: &str,
    ) -> Result<(), HypervisorError> {
        self.done(&copy::set_networks(node, vmid, nets, digest)?).await
    }

    async fn task(&self, task: &Upid) -> Result<Option<TaskState>, HypervisorError> {
        let node = node_of(call::TASK, task)?;
        match self.read(&request::task(&node, task)).await {
            Ok(data) => decode::task(&data).map(Some),
            Err(error) if forgotten(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn abort_task(&self, task: &Upid) -> Result<(), HypervisorError> {
        let node = node_of(call::ABORT_TASK, task)?;
        self.done(&request::abort_task(&node, task)).await
    }

    /// The first page says how many lines there are; an ended task's log is read in two calls at most.
    async fn task_log(&self, task: &Upid, lines: u32) -> Result<Vec<String>, HypervisorError> {
        let node = node_of(call::TASK_LOG, task)?;
        let (first, total) = match self.log_page(&node, task, 0, lines).await {
            Err(error) if forgotten(&error) => return Ok(Vec::new()),
            page => page?,
        };
        match total {
            Some(total) if total > u64::from(lines) => {
                let start = total - u64::from(lines);
                Ok(self.log_page(&node, task, start, lines).await?.0)
            }
            _ => Ok(first),
        }
    }

    async fn tasks_of(&self, vmid: Vmid) -> Result<Vec<TaskSummary>, HypervisorError> {
        self.tasks_on_all_nodes(vmid).await
    }

    async fn volumes(
        &self,
        node: &NodeName,
        storage: &str,
        content: &str,
    ) -> Result<Vec<Volume>, HypervisorError> {
        decode::volumes(&self.read(&request::volumes(node, storage, content)).await?)
    }

    async fn back_up(&self, node: &NodeName, backup: &NewBackup) -> Result<Upid, HypervisorError> {
        let request = request::back_up(node, backup);
        match self.read(&request).await? {
            // A node passes guests of other nodes over, and starts nothing.
            Value::String(text) if text == "OK" => {
                Err(HypervisorError::NoGuest { call: request.call })
            }
            data => Self::task_in(request.call, &data, node, Some(backup.vmid)),
        }
    }

    async fn delete_volume(
        &self,
        node: &NodeName,
        storage: &str,
        volume: &str,
    ) -> Result<Option<Upid>, HypervisorError> {
        let request = request::delete_volume(node, storage, volume);
        // Some storages remove at once and answer null; the others start a task.
        match self.send(&request).await?.data {
            Value::Null => Ok(None),
            data => decode::upid(request.call, &data).map(Some),
        }
    }

    async fn appliances(&self, node: &NodeName) -> Result<Vec<Appliance>, HypervisorError> {
        decode::appliances(&self.read(&request::appliances(node)).await?)
    }

    async fn download_appliance(
        &self,
        node: &NodeName,
        storage: &str,
        template: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&request::download(node, storage, template), node, None).await
    }

    async fn pull_oci_image(
        &self,
        node: &NodeName,
        storage: &str,
        reference: &str,
        file_name: &str,
    ) -> Result<Upid, HypervisorError> {
        self.task_for(&oci::pull(node, storage, reference, file_name), node, None).await
    }
}
