//! What steps need besides Proxmox: a look at an application's port, and a secret in clear.

use std::net::SocketAddr;

use async_trait::async_trait;
use proximity_domain::{ApplicationId, SecretId};

use crate::error::Error;
use crate::secret::Secret;
use crate::secret_uses::By;

/// Knocks at a guest's port. Each knock has a deadline of a few seconds of its own.
#[async_trait]
pub trait Prober: Send + Sync {
    /// GET on the path; the status, or a sentence why none came.
    async fn http(&self, at: SocketAddr, path: &str) -> Result<u16, String>;
    /// Whether a connection is accepted, or a sentence why not.
    async fn tcp(&self, at: SocketAddr) -> Result<(), String>;
}

/// Opens what an application's environment refers to.
#[async_trait]
pub trait SecretReader: Send + Sync {
    /// The secret, if it belongs to this application's record; a ciphertext that was moved there
    /// from another record does not open.
    async fn open(
        &self,
        id: SecretId,
        application: &ApplicationId,
        by: &By,
    ) -> Result<Secret, Error>;
}
