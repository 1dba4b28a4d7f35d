//! Machines that can be reached in these tests; each asks for its password and certificate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proximity_domain::host::Fingerprint;
use proximity_domain::{NodeName, Port, Vmid};

use crate::ports::*;

/// What answers at an address.
#[derive(Clone)]
pub(super) struct Rack {
    pub cluster: String,
    pub fingerprint: Fingerprint,
    pub password: String,
}

/// All machines, and what was asked of them.
#[derive(Default)]
pub(super) struct Racks {
    machines: Arc<Mutex<HashMap<String, Rack>>>,
    calls: Mutex<Vec<String>>,
    credentials: Mutex<Vec<Credential>>,
}

impl Racks {
    pub(super) fn put(&self, address: &str, rack: Rack) {
        self.machines.lock().unwrap().insert(address.to_owned(), rack);
    }

    pub(super) fn at(&self, address: &str) -> Rack {
        self.machines.lock().unwrap()[address].clone()
    }

    pub(super) fn rename(&self, address: &str, cluster: &str) {
        let mut machines = self.machines.lock().unwrap();
        machines.get_mut(address).unwrap().cluster = cluster.to_owned();
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn last_credential(&self) -> Credential {
        self.credentials.lock().unwrap().last().unwrap().clone()
    }
}

#[async_trait]
impl Connector for Racks {
    async fn connect(&self, spec: &ConnectionSpec) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        self.calls.lock().unwrap().push(format!("connect {} {:?}", spec.address, spec.trust));
        self.credentials.lock().unwrap().push(spec.credential.clone());
        let machines = Arc::clone(&self.machines);
        Ok(Arc::new(Adapter { spec: spec.clone(), machines }))
    }

    async fn probe_fingerprint(
        &self,
        address: &str,
        _port: Port,
    ) -> Result<Fingerprint, HypervisorError> {
        self.calls.lock().unwrap().push(format!("probe {address}"));
        Ok(self.at(address).fingerprint)
    }
}

struct Adapter {
    spec: ConnectionSpec,
    machines: Arc<Mutex<HashMap<String, Rack>>>,
}

const CALL: &str = "test";

impl Adapter {
    fn rack(&self) -> Result<Rack, HypervisorError> {
        let rack = self.machines.lock().unwrap()[&self.spec.address].clone();
        match self.spec.trust {
            Trust::Pinned(pinned) if pinned != rack.fingerprint => {
                return Err(HypervisorError::Certificate { call: CALL, reason: "another".into() });
            }
            Trust::Pinned(_) | Trust::Authorities => {}
        }
        match &self.spec.credential {
            Credential::Password(password) if password.expose() == rack.password => Ok(rack),
            Credential::Password(_) | Credential::Token { .. } => {
                Err(HypervisorError::Unauthorized { call: CALL })
            }
        }
    }
}

fn node() -> NodeName {
    "pve1".parse().unwrap()
}

/// Hosts need who it is, its version and its nodes; whatever else is asked fails the test.
#[async_trait]
impl Hypervisor for Adapter {
    async fn identity(&self) -> Result<ClusterIdentity, HypervisorError> {
        let cluster = self.rack()?.cluster.parse().unwrap();
        Ok(ClusterIdentity { cluster, quorate: true, nodes: vec![node()], offline: Vec::new() })
    }
    async fn version(&self) -> Result<Version, HypervisorError> {
        self.rack()?;
        Ok(Version { text: "9.1.7".into(), major: 9, minor: 1 })
    }
    async fn nodes(&self) -> Result<Vec<Node>, HypervisorError> {
        self.rack()?;
        Ok(vec![Node {
            name: node(),
            online: true,
            cores: Some(8),
            cpu: Some(0.5),
            memory_total: Some(1 << 35),
            memory_used: Some(rand::random_range(0..1 << 34)),
            disk_total: Some(1 << 40),
            disk_used: None,
            uptime: Some(7),
        }])
    }
    async fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        self.rack()?;
        Ok(vec![])
    }
    async fn usage(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _span: crate::ports::Span,
    ) -> Result<Vec<crate::ports::UsageSample>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn vmid_is_free(&self, _vmid: Vmid) -> Result<bool, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn storages(&self, _node: &NodeName) -> Result<Vec<Storage>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn retention(
        &self,
        _node: &NodeName,
        _storage: &str,
    ) -> Result<Option<String>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn config(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn current_config(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
    ) -> Result<Option<GuestConfig>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn status(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
    ) -> Result<Option<GuestStatus>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn addresses(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
    ) -> Result<Vec<IpAddr>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn mentions(
        &self,
        _guest: &Guest,
        _words: &BTreeSet<String>,
    ) -> Result<Option<BTreeSet<String>>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn create(&self, _node: &NodeName, _guest: &NewGuest) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn set_process(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _process: &crate::ports::Process,
        _config: &GuestConfig,
    ) -> Result<(), HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn start(&self, _node: &NodeName, _vmid: Vmid) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn stop(&self, _node: &NodeName, _vmid: Vmid) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn shutdown(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn reboot(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _timeout_s: u32,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn privileges(&self, _path: &str) -> Result<BTreeMap<String, bool>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn can_snapshot(&self, _node: &NodeName, _vmid: Vmid) -> Result<bool, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn snapshots(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
    ) -> Result<Vec<String>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn create_snapshot(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _name: &str,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn delete_snapshot(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _name: &str,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn copy(
        &self,
        _node: &NodeName,
        _source: Vmid,
        _copy: &NewCopy,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn restore(
        &self,
        _node: &NodeName,
        _restored: &NewRestored,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn archived(
        &self,
        _node: &NodeName,
        _archive: &str,
    ) -> Result<crate::ports::ArchivedConfig, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn set_networks(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _nets: &std::collections::BTreeMap<String, String>,
        _digest: &str,
    ) -> Result<(), HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn set_protection(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _on: bool,
        _digest: &str,
    ) -> Result<(), HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn set_description(
        &self,
        _node: &NodeName,
        _vmid: Vmid,
        _text: &str,
        _digest: &str,
    ) -> Result<(), HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn destroy(&self, _node: &NodeName, _vmid: Vmid) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn task(&self, _task: &Upid) -> Result<Option<TaskState>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn abort_task(&self, _task: &Upid) -> Result<(), HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn task_log(&self, _task: &Upid, _lines: u32) -> Result<Vec<String>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn tasks_of(&self, _vmid: Vmid) -> Result<Vec<TaskSummary>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn volumes(
        &self,
        _node: &NodeName,
        _storage: &str,
        _content: &str,
    ) -> Result<Vec<Volume>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn back_up(
        &self,
        _node: &NodeName,
        _backup: &NewBackup,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn delete_volume(
        &self,
        _node: &NodeName,
        _storage: &str,
        _volume: &str,
    ) -> Result<Option<Upid>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn appliances(&self, _node: &NodeName) -> Result<Vec<Appliance>, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn download_appliance(
        &self,
        _node: &NodeName,
        _storage: &str,
        _template: &str,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
    async fn pull_oci_image(
        &self,
        _node: &NodeName,
        _storage: &str,
        _reference: &str,
        _file_name: &str,
    ) -> Result<Upid, HypervisorError> {
        unreachable!("hosts do not ask for this")
    }
}
