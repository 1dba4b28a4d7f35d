//! Finds the adapter of a registered host, and makes a new one when its connection has changed.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use proximity_domain::HostId;
use proximity_domain::host::{Auth, Connection};
use proximity_eventstore::{Store, tables};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::ports::{
    ConnectionSpec, Connector, Credential, Hypervisor, HypervisorError, Hypervisors, Trust,
};
use crate::rows::{Columns, text, unreadable};
use crate::secret::Secret;
use crate::secret_uses::By;
use crate::secrets::{SecretOwner, Secrets};

/// The table and column that a host's credential is bound to.
const CREDENTIAL: (&str, &str) = ("host_connections", "credential");
/// Names the look-up in errors.
const CALL: &str = "registered host";

/// Adapters by host, kept while their rows stay the same.
pub struct HostDirectory {
    store: Store,
    secrets: Secrets,
    connector: Arc<dyn Connector>,
    known: Mutex<HashMap<HostId, Known>>,
}

struct Known {
    updated_at: i64,
    adapter: Arc<dyn Hypervisor>,
}

/// Whose secret a host's credential is.
pub(crate) fn credential_of(host: HostId) -> SecretOwner {
    SecretOwner { table: CREDENTIAL.0, record: host.to_string(), column: CREDENTIAL.1.to_owned() }
}

/// How to reach a host, from its record and its credential in clear.
pub(crate) fn spec(connection: &Connection, secret: Secret) -> ConnectionSpec {
    ConnectionSpec {
        address: connection.address.clone(),
        port: connection.port,
        user: connection.user.clone(),
        credential: match &connection.auth {
            Auth::Password => Credential::Password(secret),
            Auth::Token { id } => Credential::Token { id: id.clone(), secret },
        },
        trust: match connection.fingerprint {
            Some(fingerprint) if !connection.verify_ssl => Trust::Pinned(fingerprint),
            _ => Trust::Authorities,
        },
    }
}

impl HostDirectory {
    pub fn new(store: Store, secrets: Secrets, connector: Arc<dyn Connector>) -> Self {
        Self { store, secrets, connector, known: Mutex::default() }
    }

    /// Makes adapters for connections that are not registered yet.
    pub fn connector(&self) -> &dyn Connector {
        &*self.connector
    }

    /// The stored credential of a host.
    pub(crate) async fn secret(
        &self,
        host: HostId,
        connection: &Connection,
        by: &By,
    ) -> Result<Secret, Error> {
        self.secrets.unseal_by(connection.credential, &credential_of(host), by).await
    }

    /// The registered connections: host, record, and whether it is active and not suspended.
    pub(crate) async fn rows(&self, host: Option<HostId>) -> Result<Vec<HostRow>, Error> {
        let filter = host.map(|host| vec![("host_id", text(host))]).unwrap_or_default();
        let rows =
            self.store.rows(&tables::HOST_CONNECTIONS, filter, 1_000).await.map_err(unreadable)?;
        rows.into_iter().map(Columns).map(|row| HostRow::read(&row)).collect()
    }

    async fn adapter(&self, host: HostId) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        let away = |error: Error| {
            tracing::warn!(%host, ?error, "a host's record cannot be read");
            let reason = match error.code() {
                "keys.missing" => "this server lacks the master key of its credential",
                _ => "its record cannot be read",
            };
            HypervisorError::Retryable { call: CALL, reason: reason.into() }
        };
        let row = self.rows(Some(host)).await.map_err(away)?.pop();
        let Some(row) = row else {
            return Err(HypervisorError::Permanent { call: CALL, reason: "it was removed".into() });
        };
        if !row.usable {
            // Bounded tries give an admin the time to look.
            return Err(HypervisorError::Retryable {
                call: CALL,
                reason: "it is not active".into(),
            });
        }
        let mut known = self.known.lock().await;
        if let Some(known) = known.get(&host).filter(|known| known.updated_at == row.updated_at) {
            return Ok(Arc::clone(&known.adapter));
        }
        let secret = self.secret(host, &row.connection, &By::program()).await.map_err(away)?;
        let adapter = self.connector.connect(&spec(&row.connection, secret)).await?;
        let entry = Known { updated_at: row.updated_at, adapter: Arc::clone(&adapter) };
        known.insert(host, entry);
        Ok(adapter)
    }
}

#[async_trait]
impl Hypervisors for HostDirectory {
    async fn of(&self, host: HostId) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        self.adapter(host).await
    }
}

/// A registered connection as its side row describes it.
#[derive(Debug, Clone)]
pub(crate) struct HostRow {
    pub(crate) host: HostId,
    pub(crate) connection: Connection,
    pub(crate) usable: bool,
    pub(crate) is_default: bool,
    updated_at: i64,
}

impl HostRow {
    fn read(row: &Columns) -> Result<Self, Error> {
        let port = |name| {
            let port = row.integer(name)?;
            port.try_into().map_err(|_| Error::internal("a side row is malformed", name))
        };
        let auth = match row.optional_text("token_id")? {
            Some(id) => Auth::Token { id: id.to_owned() },
            None => Auth::Password,
        };
        let fingerprint = row.optional_text("fingerprint")?.map(str::parse).transpose();
        let connection = Connection {
            name: row.text("name")?.to_owned(),
            address: row.text("address")?.to_owned(),
            port: port("port")?,
            user: row.text("user")?.to_owned(),
            auth,
            credential: row.parsed("secret_id")?,
            verify_ssl: row.boolean("verify_ssl")?,
            fingerprint: fingerprint
                .map_err(|error| Error::internal("a side row is malformed", error))?,
            ssh_port: port("ssh_port")?,
        };
        Ok(Self {
            host: row.parsed("host_id")?,
            connection,
            usable: row.boolean("is_active")? && row.optional_text("suspended")?.is_none(),
            is_default: row.boolean("is_default")?,
            updated_at: row.integer("updated_at")?,
        })
    }
}
