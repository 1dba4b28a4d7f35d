//! Makes clients, and lets all of those for one address share the limit on calls at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use proximity_commands::ports::{ConnectionSpec, Connector, Hypervisor, HypervisorError};
use proximity_domain::Port;
use proximity_domain::host::Fingerprint;
use tokio::sync::Semaphore;

use crate::client::PveClient;
use crate::limits::Limits;
use crate::tls;
use crate::transport::Gate;

/// The way in for those who know connections only as data.
#[derive(Debug, Default)]
pub struct PveConnector {
    limits: Limits,
    gates: Mutex<HashMap<(String, Port), Weak<Semaphore>>>,
}

impl PveConnector {
    /// Makes clients with these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, gates: Mutex::default() }
    }

    /// The client itself, for those who need no trait object.
    pub fn client(&self, spec: &ConnectionSpec) -> Result<PveClient, HypervisorError> {
        PveClient::with_gate(spec, self.limits, self.gate(&spec.address, spec.port))
    }

    /// Old and new clients of an address are in flight together while a credential is changed.
    fn gate(&self, address: &str, port: Port) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let key = (address.to_ascii_lowercase(), port);
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(Semaphore::new(self.limits.concurrency));
        gates.insert(key, Arc::downgrade(&gate));
        gate
    }
}

#[async_trait]
impl Connector for PveConnector {
    async fn connect(&self, spec: &ConnectionSpec) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        Ok(Arc::new(self.client(spec)?))
    }

    async fn probe_fingerprint(
        &self,
        address: &str,
        port: Port,
    ) -> Result<Fingerprint, HypervisorError> {
        tls::probe_fingerprint(address, port, self.limits.connect).await
    }
}
