//! That servers run on a database, told by a lock which they share; whoever needs the log to itself takes it
//! alone. On SQLite the lock on the data directory does both.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connect_options;
use crate::error::Error;
use crate::options::Location;

/// Taken by each server for as long as it runs.
const SHARED: &str = "select pg_try_advisory_lock_shared(5788045172043127)";
/// Taken by one that no server may run beside.
const ALONE: &str = "select pg_try_advisory_lock(5788045172043127)";
/// Gives it back.
const LEAVE: &str = "select pg_advisory_unlock(5788045172043127)";
/// Whether any server has it.
const IS_SHARED: &str = "select exists (select 1 from pg_locks \
    where locktype = 'advisory' and objsubid = 1 and mode = 'ShareLock' and granted \
      and (classid::bigint << 32) | objid::bigint = 5788045172043127 \
      and database = (select oid from pg_database where datname = current_database()))";
/// How often a server looks whether its connection, and the lock with it, is still there.
const LOOK: Duration = Duration::from_secs(2);
/// How long a lock may outlive its process: PostgreSQL has to notice that the connection has ended.
const LINGER: Duration = Duration::from_secs(2);
/// Longer than a server that has lost its connection takes to have the lock again.
const RETURN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// A server's share of the lock, held until it is dropped and taken again when the connection is lost.
pub(super) struct Present {
    task: JoinHandle<()>,
}

impl Present {
    /// Refuses where somebody has the log alone.
    pub async fn begin(url: &str) -> Result<Self, Error> {
        let connection = take(url, SHARED).await?.ok_or(Error::Reserved)?;
        Ok(Self { task: tokio::spawn(stay(url.to_owned(), connection)) })
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        // The task owns the connection, which has the lock.
        self.task.abort();
    }
}

async fn stay(url: String, connection: PgConnection) {
    let mut held = Some(connection);
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(connection) = &mut held {
            match connection.ping().await {
                Ok(()) => continue,
                Err(error) => tracing::warn!(%error, "it is no longer told that this server runs"),
            }
        }
        held = match take(&url, SHARED).await {
            Ok(Some(connection)) => Some(connection),
            Ok(None) => {
                tracing::error!(
                    "this server lost the database, and a command that no server may run beside has \
                     begun: stop this server"
                );
                None
            }
            Err(error) => {
                tracing::debug!(%error, "it cannot be told yet that this server runs");
                None
            }
        };
    }
}

/// Keeps servers away from a log for as long as it lives.
#[derive(Debug)]
pub struct Alone {
    /// On PostgreSQL; the embedded store is locked by whoever opens it.
    _connection: Option<PgConnection>,
}

impl Alone {
    /// Refuses while a server runs on the database, or another one has it alone.
    ///
    /// PostgreSQL may have been started anew a moment ago, and all servers have lost their share of the lock
    /// with their connections. So once it is free, it is left free for as long as they need to take it again.
    pub async fn take(location: &Location) -> Result<Self, Error> {
        let Location::Postgres { url } = location else { return Ok(Self { _connection: None }) };
        let deadline = Instant::now() + LINGER;
        let mut connection = loop {
            if let Some(connection) = take(url, ALONE).await? {
                break connection;
            }
            if Instant::now() >= deadline {
                return Err(Error::Served);
            }
            tokio::time::sleep(PAUSE).await;
        };
        sqlx::query(LEAVE).execute(&mut connection).await?;
        let deadline = Instant::now() + RETURN;
        while Instant::now() < deadline {
            if sqlx::query_scalar(IS_SHARED).fetch_one(&mut connection).await? {
                connection.close().await?;
                return Err(Error::Served);
            }
            tokio::time::sleep(PAUSE).await;
        }
        if sqlx::query_scalar(ALONE).fetch_one(&mut connection).await? {
            return Ok(Self { _connection: Some(connection) });
        }
        connection.close().await?;
        Err(Error::Served)
    }
}

/// Whether servers share the lock. It is only looked at: whoever took it would keep a server from starting.
pub async fn is_served(location: &Location) -> Result<bool, Error> {
    let Location::Postgres { url } = location else { return Ok(false) };
    let connect = connect_options(url)?.application_name("proximity-present");
    let mut connection = PgConnection::connect_with(&connect).await?;
    let is_served = sqlx::query_scalar(IS_SHARED).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(is_served)
}

/// A connection that has the lock; `None` when others keep it from that.
async fn take(url: &str, lock: &'static str) -> Result<Option<PgConnection>, Error> {
    let connect = connect_options(url)?.application_name("proximity-present");
    let mut connection = PgConnection::connect_with(&connect).await?;
    let is_ours: bool = sqlx::query_scalar(lock).fetch_one(&mut connection).await?;
    if is_ours {
        return Ok(Some(connection));
    }
    connection.close().await?;
    Ok(None)
}
