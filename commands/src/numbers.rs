//! Ids that people read: 1, 2, 3 …, each given once, in the append that uses it.

use proximity_eventstore::{AppendError, Guard, SideWrite, Store, tables};

use crate::Error;
use crate::dispatch::{Tried, Unit};
use crate::rows::{Columns, text, unreadable};

/// Takes the next number; of two that take the same one, one append is stale and decides anew.
pub(crate) async fn next(
    store: &Store,
    unit: &mut Unit<'_>,
    counter: &'static str,
) -> Result<i64, Error> {
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
