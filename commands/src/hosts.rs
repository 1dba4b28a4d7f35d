//! Registering, changing, testing and removing Proxmox hosts; an admin's business throughout.

mod input;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use proximity_domain::host::{Auth, Command, Connection, Error as HostError, Host, Registration};
use proximity_domain::lease::{Command as LeaseCommand, Holder, Lease};
use proximity_domain::{HostId, LeaseKey, SecretId};
use proximity_eventstore::{AppendError, Guard, Position, SideWrite, Store, Value, tables};
use uuid::Uuid;

pub use input::{DEFAULT_USER, HostChange, HostInput};
pub use watch::{NodeFigures, NodeWatch};

use crate::clock::Clock;
use crate::directory::{HostDirectory, credential_of, spec};
use crate::dispatch::{Refused, Retries, Tried, Unit};
use crate::error::Error;
use crate::policy::Admin;
use crate::ports::{ClusterIdentity, Hypervisor};
use crate::rows::{optional, text};
use crate::secret::Secret;
use crate::secret_uses::By;
use crate::secrets::Secrets;

/// The code of a change that was made from what the host was no more.
const CHANGED_MEANWHILE: &str = "host.changed_meanwhile";

/// Everything that commands on hosts need.
pub struct Hosts {
    pub store: Store,
    pub secrets: Secrets,
    pub directory: Arc<HostDirectory>,
    pub clock: Arc<dyn Clock>,
}

/// What a command on a host came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostDone {
    pub host: HostId,
    pub position: Position,
}

impl Hosts {
    /// Connects first: what does not answer, or is registered already, is refused.
    pub async fn create(&self, admin: &Admin, input: HostInput) -> Result<HostDone, Error> {
        let (mut connection, secret) = input.parse()?;
        self.pin(&mut connection).await?;
        let hypervisor = self.connect(&connection, secret.clone()).await?;
        let identity = hypervisor.identity().await?;
        let nodes = watch::observe(&*hypervisor).await?;
        let mut retries = Retries::default();
        loop {
            match self.try_create(admin, &input, &connection, &secret, &identity, &nodes).await {
                Ok(done) => return Ok(done),
                Err(tried) => retries.again(tried).await?,
            }
        }
    }

    async fn try_create(
        &self,
        admin: &Admin,
        input: &HostInput,
        connection: &Connection,
        secret: &Secret,
        identity: &ClusterIdentity,
        nodes: &[proximity_domain::host::ObservedNode],
    ) -> Result<HostDone, Tried> {
        let others = self.directory.rows(None).await?;
        let mut unit = Unit::new(&self.store, admin.actor().metadata("host.create"));
        // Ids are never used again, so the first one after the last that was ever issued.
        let mut number = others.iter().map(|row| row.host.0).max().unwrap_or(0) + 1;
        while unit.load::<Host>(&number.to_string()).await? != Host::Absent {
            number += 1;
        }
        let host = HostId(number);
        let now = self.clock.now();
        let mut connection = connection.clone();
        let credential = SecretId(Uuid::new_v4());
        self.secrets.seal_into(&mut unit, credential, &credential_of(host), 1, secret, now).await?;
        connection.credential = credential;
        let is_default = input.is_default || others.iter().all(|row| !row.is_default);
        if is_default {
            self.take_default(&mut unit, host, now).await?;
        }
        lease(&mut unit, host, LeaseKey::HostName(fold(&connection.name)), true).await?;
        lease(&mut unit, host, LeaseKey::Cluster(identity.cluster.clone()), true).await?;
        let register = Command::Register {
            connection: connection.clone(),
            cluster: identity.cluster.clone(),
            is_default,
        };
        judge(&mut unit, host, register).await?;
        judge(&mut unit, host, Command::ObserveNodes { nodes: nodes.to_vec() }).await?;
        let cluster = identity.cluster.as_str();
        unit.write(row(host, &connection, cluster, true, is_default, now));
        let position = unit.commit().await.map_err(Tried::from)?.position;
        Ok(HostDone { host, position })
    }

    /// Any subset of fields. A stored credential is only ever sent where it was entered for: a new
    /// address, port, user or certificate asks for it again. When others change the host at the same
    /// moment it is made anew from what they left, unless the caller says what it was made from.
    pub async fn change(
        &self,
        admin: &Admin,
        host: HostId,
        change: HostChange,
    ) -> Result<HostDone, Error> {
        let first = self.registered(host).await?;
        let mut old = first.clone();
        let mut retries = Retries::default();
        loop {
            match self.change_from(admin, host, &change, &old).await {
                Err(Error::Conflict { code: CHANGED_MEANWHILE, .. }) => {}
                done => return done,
            }
            old = self.registered(host).await?;
            // Half of each change would send one's credential to the other's address.
            let would_mix = change.has_secret() && !same_place(&first.connection, &old.connection);
            if would_mix || admin.actor().seen.get().is_some() {
                return Err(changed_meanwhile());
            }
            let table = tables::HOST_CONNECTIONS.name;
            let stale = Tried::Stale(AppendError::SideStale { table });
            retries.again(stale).await.map_err(|_| changed_meanwhile())?;
        }
    }

    /// One attempt, from what the host was just before.
    async fn change_from(
        &self,
        admin: &Admin,
        host: HostId,
        change: &HostChange,
        old: &Registration,
    ) -> Result<HostDone, Error> {
        let (mut connection, secret) = change.apply(&old.connection)?;
        let is_for = |connection: &Connection| {
            if secret.is_some() || same_place(&old.connection, connection) {
                return Ok(());
            }
            Err(Error::invalid(
                "password",
                "host.credential_required",
                "the stored credential was entered for another address, port, user or certificate; \
                 send it again",
            ))
        };
        if connection.verify_ssl || connection.fingerprint.is_some() {
            is_for(&connection)?;
        } else {
            // Nobody is asked for a certificate where the rest differs already.
            let fingerprint = old.connection.fingerprint;
            is_for(&Connection { fingerprint, ..connection.clone() })?;
            self.pin(&mut connection).await?;
            is_for(&connection)?;
        }
        let is_active = change.is_active.unwrap_or(old.is_active);
        let shown = match &secret {
            Some(secret) => Some(secret.clone()),
            // Leaving a suspended host active releases it: only if it is itself again.
            None if old.suspended.is_some() && is_active => Some(
                self.directory.secret(host, &old.connection, &By::caller(admin.actor())).await?,
            ),
            None => None,
        };
        if let Some(secret) = shown {
            let hypervisor = self.connect(&connection, secret).await?;
            same_cluster(&hypervisor.identity().await?, old)?;
        }
        let is_default = change.is_default.unwrap_or(old.is_default);
        let mut retries = Retries::default();
        loop {
            let wanted = Wanted {
                from: &old.connection,
                connection: &connection,
                secret: &secret,
                is_active,
                is_default,
            };
            match self.try_change(admin, host, wanted).await {
                Ok(done) => return Ok(done),
                Err(tried) => retries.again(tried).await?,
            }
        }
    }

    async fn try_change(
        &self,
        admin: &Admin,
        host: HostId,
        wanted: Wanted<'_>,
    ) -> Result<HostDone, Tried> {
        let mut unit = Unit::new(&self.store, admin.actor().metadata("host.change"));
        let state = unit.load::<Host>(&host.to_string()).await?;
        let old = state.registration().ok_or(Error::NotFound)?.clone();
        if old.connection != *wanted.from {
            // What was checked is not what would be stored now.
            return Err(changed_meanwhile().into());
        }
        let now = self.clock.now();
        let mut connection = wanted.connection.clone();
        if let Some(secret) = wanted.secret {
            let version = self.secrets.version(old.connection.credential).await? + 1;
            let id = SecretId(Uuid::new_v4());
            let owner = credential_of(host);
            self.secrets.seal_into(&mut unit, id, &owner, version, secret, now).await?;
            connection.credential = id;
            unit.write(Secrets::forget(old.connection.credential));
        }
        let (from, to) = (fold(&old.connection.name), fold(&connection.name));
        if from != to {
            lease(&mut unit, host, LeaseKey::HostName(from), false).await?;
            lease(&mut unit, host, LeaseKey::HostName(to), true).await?;
        }
        if wanted.is_default && !old.is_default {
            self.take_default(&mut unit, host, now).await?;
        }
        let (is_active, is_default) = (wanted.is_active, wanted.is_default);
        let command = Command::Change { connection: connection.clone(), is_active, is_default };
        judge(&mut unit, host, command).await?;
        unit.write(row(host, &connection, old.cluster.as_str(), is_active, is_default, now));
        let position = unit.commit().await.map_err(Tried::from)?.position;
        Ok(HostDone { host, position })
    }

    /// Refused while applications are on it, or operations on what is left of others.
    pub async fn delete(&self, admin: &Admin, host: HostId) -> Result<HostDone, Error> {
        let mut retries = Retries::default();
        loop {
            match self.try_delete(admin, host).await {
                Ok(done) => return Ok(done),
                Err(Tried::Failed(Error::Unavailable { code: "store.contended", .. })) => {
                    return Err(in_use());
                }
                Err(tried) => retries.again(tried).await?,
            }
        }
    }

    async fn try_delete(&self, admin: &Admin, host: HostId) -> Result<HostDone, Tried> {
        let filter = vec![("host_id", text(host))];
        let used = self.store.rows(&tables::HOST_USAGE, filter.clone(), 1).await;
        if !used.map_err(crate::rows::unreadable)?.is_empty() {
            return Err(in_use().into());
        }
        let mut unit = Unit::new(&self.store, admin.actor().metadata("host.delete"));
        let state = unit.load::<Host>(&host.to_string()).await?;
        let old = state.registration().ok_or(Error::NotFound)?.clone();
        judge(&mut unit, host, Command::Remove).await?;
        lease(&mut unit, host, LeaseKey::HostName(fold(&old.connection.name)), false).await?;
        lease(&mut unit, host, LeaseKey::Cluster(old.cluster.clone()), false).await?;
        if old.is_default {
            self.pass_default_on(&mut unit, host).await?;
        }
        // A deployment that was accepted since the look above lets this append fail.
        let guard = Guard::Rows(0);
        unit.write(SideWrite::Delete { table: &tables::HOST_USAGE, filter: filter.clone(), guard });
        let (table, guard) = (&tables::HOST_CONNECTIONS, Guard::None);
        unit.write(SideWrite::Delete { table, filter, guard });
        unit.write(Secrets::forget(old.connection.credential));
        let position = unit.commit().await.map_err(Tried::from)?.position;
        Ok(HostDone { host, position })
    }

    /// Connects with the stored credential; a sentence about what answered.
    pub async fn test(&self, admin: &Admin, host: HostId) -> Result<String, Error> {
        let hypervisor = self.stored(host, &By::caller(admin.actor())).await?;
        let version = hypervisor.version().await?;
        let identity = hypervisor.identity().await?;
        same_cluster(&identity, &self.registered(host).await?)?;
        Ok(format!(
            "Proxmox VE {} answers as {} with {} nodes",
            version.text,
            identity.cluster,
            identity.nodes.len()
        ))
    }

    /// Reads the nodes now; how many there are.
    pub async fn sync_nodes(
        &self,
        admin: &Admin,
        host: HostId,
    ) -> Result<(usize, Option<Position>), Error> {
        let hypervisor = self.stored(host, &By::caller(admin.actor())).await?;
        same_cluster(&hypervisor.identity().await?, &self.registered(host).await?)?;
        let nodes = watch::observe(&*hypervisor).await?;
        let count = nodes.len();
        let meta = admin.actor().metadata("host.sync_nodes");
        Ok((count, watch::record(&self.store, meta, host, nodes).await?))
    }

    async fn registered(&self, host: HostId) -> Result<Registration, Error> {
        let (state, _) = crate::dispatch::load::<Host>(&self.store, &host.to_string()).await?;
        state.registration().cloned().ok_or(Error::NotFound)
    }

    /// An adapter made now, so that a test tries the stored credential and not an old ticket.
    async fn stored(&self, host: HostId, by: &By) -> Result<Arc<dyn Hypervisor>, Error> {
        let connection = self.registered(host).await?.connection;
        let secret = self.directory.secret(host, &connection, by).await?;
        self.connect(&connection, secret).await
    }

    async fn connect(
        &self,
        connection: &Connection,
        secret: Secret,
    ) -> Result<Arc<dyn Hypervisor>, Error> {
        Ok(self.directory.connector().connect(&spec(connection, secret)).await?)
    }

    /// Without verification the certificate seen first is pinned, before a credential is sent.
    async fn pin(&self, connection: &mut Connection) -> Result<(), Error> {
        if !connection.verify_ssl && connection.fingerprint.is_none() {
            let (address, port) = (connection.address.as_str(), connection.port);
            let seen = self.directory.connector().probe_fingerprint(address, port).await?;
            connection.fingerprint = Some(seen);
        }
        Ok(())
    }

    /// The oldest active host becomes the default when the default one goes.
    async fn pass_default_on(&self, unit: &mut Unit<'_>, from: HostId) -> Result<(), Error> {
        let mut others = self.directory.rows(None).await?;
        others.retain(|row| row.host != from && row.usable);
        others.sort_by_key(|row| row.host);
        let Some(heir) = others.first().map(|row| row.host) else { return Ok(()) };
        let state = unit.load::<Host>(&heir.to_string()).await?;
        let Some(old) = state.registration().filter(|host| host.is_active) else { return Ok(()) };
        let connection = old.connection.clone();
        let now = self.clock.now();
        unit.write(row(heir, &connection, old.cluster.as_str(), true, true, now));
        let command = Command::Change { connection, is_active: true, is_default: true };
        judge(unit, heir, command).await.map(drop)
    }

    /// There is one default: the one before stops being it in the same append.
    async fn take_default(&self, unit: &mut Unit<'_>, host: HostId, now: i64) -> Result<(), Error> {
        for other in self.directory.rows(None).await? {
            if other.host == host || !other.is_default {
                continue;
            }
            let state = unit.load::<Host>(&other.host.to_string()).await?;
            let Some(old) = state.registration() else { continue };
            let command = Command::Change {
                connection: old.connection.clone(),
                is_active: old.is_active,
                is_default: false,
            };
            let cluster = old.cluster.as_str();
            unit.write(row(other.host, &old.connection, cluster, old.is_active, false, now));
            judge(unit, other.host, command).await?;
        }
        Ok(())
    }
}

/// What a changed host is to be.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// What the change was made from.
    from: &'a Connection,
    connection: &'a Connection,
    secret: &'a Option<Secret>,
    is_active: bool,
    is_default: bool,
}

/// An address that leads to another cluster now is not the host that was registered.
fn same_cluster(seen: &ClusterIdentity, registered: &Registration) -> Result<(), Error> {
    if seen.cluster == registered.cluster {
        return Ok(());
    }
    let detail = format!("this address answers as {}, not as {}", seen.cluster, registered.cluster);
    Err(Error::conflict("host.other_cluster", detail))
}

fn same_place(a: &Connection, b: &Connection) -> bool {
    let place = |c: &Connection| {
        (c.address.clone(), c.port, c.user.clone(), c.fingerprint, c.verify_ssl, c.auth.clone())
    };
    place(a) == place(b)
}

fn changed_meanwhile() -> Error {
    let detail = "the host was changed by someone else at the same moment; look again";
    Error::conflict(CHANGED_MEANWHILE, detail)
}

fn in_use() -> Error {
    let detail = "there are applications on this host, or operations on it that have not ended";
    Error::conflict("host.in_use", detail)
}

/// Names differ by more than case.
fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

async fn judge(unit: &mut Unit<'_>, host: HostId, command: Command) -> Result<usize, Error> {
    unit.apply::<Host>(&host.to_string(), command).await.map_err(|refused| {
        refused.or_else(|error| match error {
            HostError::NotFound => Error::NotFound,
            HostError::AlreadyRegistered => Error::conflict("host.id_taken", error.to_string()),
            HostError::DefaultMustBeActive => {
                Error::invalid("is_active", "host.default_must_be_active", error.to_string())
            }
        })
    })
}

/// Takes or gives back what must be unique among hosts.
async fn lease(unit: &mut Unit<'_>, host: HostId, key: LeaseKey, take: bool) -> Result<(), Error> {
    let holder = Holder::Host(host);
    let command =
        if take { LeaseCommand::Acquire { holder } } else { LeaseCommand::Release { holder } };
    match unit.apply::<Lease>(&key.to_string(), command).await {
        Ok(_) => Ok(()),
        Err(Refused::Failed(error)) => Err(error),
        Err(Refused::Judged(_)) if !take => Ok(()),
        Err(Refused::Judged(_)) => Err(match key {
            LeaseKey::Cluster(cluster) => Error::conflict(
                "host.cluster_taken",
                format!("the cluster {cluster} is registered already"),
            ),
            _ => Error::conflict("host.name_taken", "another host has this name"),
        }),
    }
}

/// The side row that adapters and lists are made from.
fn row(
    host: HostId,
    connection: &Connection,
    cluster: &str,
    is_active: bool,
    is_default: bool,
    now: i64,
) -> SideWrite {
    let token = match &connection.auth {
        Auth::Password => None,
        Auth::Token { id } => Some(id.as_str()),
    };
    let row = vec![
        ("host_id", text(host)),
        ("name", text(&connection.name)),
        ("address", text(&connection.address)),
        ("port", Value::Integer(connection.port.into())),
        ("user", text(&connection.user)),
        ("auth", text(if token.is_some() { "token" } else { "password" })),
        ("token_id", optional(token)),
        ("secret_id", text(connection.credential)),
        ("cluster", text(cluster)),
        ("is_active", Value::Boolean(is_active)),
        ("is_default", Value::Boolean(is_default)),
        // Whoever changes a host has looked at why it was suspended.
        ("suspended", Value::Null),
        ("fingerprint", optional(connection.fingerprint)),
        ("verify_ssl", Value::Boolean(connection.verify_ssl)),
        ("ssh_port", Value::Integer(connection.ssh_port.into())),
        ("updated_at", Value::Integer(now)),
    ];
    SideWrite::Upsert { table: &tables::HOST_CONNECTIONS, row }
}
