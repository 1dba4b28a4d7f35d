//! Ids that people read: 1, 2, 3 …, each given once, in the append that uses it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex as Lock, PoisonError};
use std::time::Duration;

use proximity_eventstore::{AppendError, Guard, SideWrite, Store, tables};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::Error;
use crate::dispatch::{Tried, Unit};
use crate::rows::{Columns, text, unreadable};

/// How long a turn is waited for; then the log decides alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// By counter: who holds the lock may take a number.
type Turns = Lock<HashMap<&'static str, Arc<Mutex<()>>>>;

/// Whose turn it is, in this process.
///
/// Without turns, of many that take numbers at once all but one have tried in vain, again and again,
/// until some of them give up; with them, only other servers can be faster.
static TURNS: LazyLock<Turns> = LazyLock::new(Lock::default);

async fn turn(counter: &'static str) -> Option<OwnedMutexGuard<()>> {
    let counter = {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(counter).or_default().clone()
    };
    tokio::time::timeout(PATIENCE, counter.lock_owned()).await.ok()
}

/// Takes the next number, and the turn until the unit ends; of two servers that take the same one,
/// one append is stale and decides anew.
pub(crate) async fn next(
    store: &Store,
    unit: &mut Unit<'_>,
    counter: &'static str,
) -> Result<i64, Error> {
    let turn = turn(counter).await;
    unit.hold(turn);
    let filter = vec![("key", text(counter))];
    let rows = store.rows(&tables::INSTALLATION, filter, 1).await.map_err(unreadable)?;
    let table = &tables::INSTALLATION;
    let Some(row) = rows.into_iter().next().map(Columns) else {
        unit.write(SideWrite::Insert {
            table,
            row: vec![("key", text(counter)), ("value", text(1))],
        });
        return Ok(1);
    };
    let last: i64 = row.parsed("value")?;
    unit.write(SideWrite::Update {
        table,
        set: vec![("value", text(last + 1))],
        filter: vec![("key", text(counter)), ("value", text(last))],
        guard: Guard::Rows(1),
    });
    Ok(last + 1)
}

/// The end of an attempt whose number was given to another while it was being used.
pub(crate) fn taken() -> Tried {
    Tried::Stale(AppendError::SideStale { table: tables::INSTALLATION.name })
}

/// Whether another attempt helps: it does when someone else took the number meanwhile.
pub(crate) fn tried(error: AppendError) -> Tried {
    match error {
        AppendError::SideStale { table } if table == tables::INSTALLATION.name => {
            Tried::Stale(error)
        }
        AppendError::SideConflict { ref constraint } if constraint == "installation_pkey" => {
            Tried::Stale(error)
        }
        other => other.into(),
    }
}
