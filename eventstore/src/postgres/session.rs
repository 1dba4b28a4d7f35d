//! One connection of the writer, and how an abandoned one is laid to rest.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::Instant;

use super::batch::{self, Verdicts};
use super::fault::Fault;
use crate::append::Append;

/// Which server process works for a connection.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pid: i32,
    /// Tells it from a later process with the same id.
    started: String,
}

pub(super) struct Session {
    connection: PgConnection,
    pub backend: Backend,
}

/// Why a call has no result.
pub(super) enum Lost {
    /// The call failed; the connection is fit for another one.
    Fault(Fault),
    /// The connection is gone, or did not answer in time and was given up.
    Gone(String),
}

impl Session {
    /// Connects by `deadline`.
    ///
    /// The deadline ends the whole connection, never a call on one that lives on: a call dropped
    /// midway would leave its connection in a state that nobody knows.
    pub async fn open(options: PgConnectOptions, deadline: Instant) -> Result<Self, sqlx::Error> {
        let opening = tokio::spawn(async move {
            let mut connection = PgConnection::connect_with(&options).await?;
            let row = sqlx::query(
                "select pid, backend_start::text from pg_stat_activity where pid = pg_backend_pid()",
            )
            .fetch_one(&mut connection)
            .await?;
            let backend = Backend { pid: row.try_get(0)?, started: row.try_get(1)? };
            Ok(Self { connection, backend })
        });
        let abort = opening.abort_handle();
        match tokio::time::timeout_at(deadline, opening).await {
            Ok(Ok(session)) => session,
            Ok(Err(_)) => Err(sqlx::Error::WorkerCrashed),
            Err(_) => {
                abort.abort();
                Err(sqlx::Error::PoolTimedOut)
            }
        }
    }

    /// Stores `appends[range]`; hands the session back unless it is gone.
    pub async fn call(
        mut self,
        appends: Arc<Vec<Append>>,
        range: std::ops::Range<usize>,
        deadline: Instant,
    ) -> (Option<Self>, Result<Verdicts, Lost>) {
        let calling = tokio::spawn(async move {
            let result = batch::call(&mut self.connection, &appends[range]).await;
            (self, result)
        });
        let abort = calling.abort_handle();
        match tokio::time::timeout_at(deadline, calling).await {
            Ok(Ok((session, Ok(verdicts)))) => (Some(session), Ok(verdicts)),
            Ok(Ok((session, Err(error)))) => match Fault::of_call(error) {
                Fault::Unknown(reason) => (None, Err(Lost::Gone(reason))),
                fault => (Some(session), Err(Lost::Fault(fault))),
            },
            Ok(Err(error)) => (None, Err(Lost::Gone(error.to_string()))),
            Err(_) => {
                // The task owns the connection: it dies with it.
                abort.abort();
                (None, Err(Lost::Gone("no answer in time".to_owned())))
            }
        }
    }

    /// Ends the server process of a connection that was lost, if it still runs.
    ///
    /// Else its call might be applied after the same append was refused on this connection.
    pub async fn bury(&mut self, old: &Backend, deadline: Instant) -> Result<(), sqlx::Error> {
        loop {
            let alive = sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where pid = $1 and backend_start::text = $2",
            )
            .bind(old.pid)
            .bind(&old.started)
            .fetch_all(&mut self.connection)
            .await?;
            if alive.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(sqlx::Error::PoolTimedOut);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
