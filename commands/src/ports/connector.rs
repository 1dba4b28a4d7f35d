//! How an adapter to a Proxmox host is made from an address and a credential.

use std::sync::Arc;

use async_trait::async_trait;
use proximity_domain::Port;
use proximity_domain::host::Fingerprint;

use super::{Hypervisor, HypervisorError};
use crate::secret::Secret;

/// Everything that is needed to talk to a host; printing it shows no secret.
#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    /// Host name or IP address, without brackets.
    pub address: String,
    pub port: Port,
    /// E.g. `root@pam`.
    pub user: String,
    pub credential: Credential,
    pub trust: Trust,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Exchanged for tickets, which the adapter renews before they end.
    Password(Secret),
    /// The token's name without the user (`proximity` of `root@pam!proximity`) and its value.
    Token { id: String, secret: Secret },
}

/// What proves who they are; nothing of a credential is sent before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A certificate for this address from an authority that the world trusts.
    Authorities,
    /// Exactly this certificate, whoever issued it.
    Pinned(Fingerprint),
}

/// Makes adapters; implemented where HTTP is spoken.
#[async_trait]
pub trait Connector: Send + Sync {
    /// An adapter for this host. It may wait until the first call to connect; a credential that is
    /// refused then shows as `Unauthorized`, a certificate that does not match as `Certificate`.
    async fn connect(&self, spec: &ConnectionSpec) -> Result<Arc<dyn Hypervisor>, HypervisorError>;

    /// The certificate that this address presents now; not one byte of a credential is sent.
    async fn probe_fingerprint(
        &self,
        address: &str,
        port: Port,
    ) -> Result<Fingerprint, HypervisorError>;
}
