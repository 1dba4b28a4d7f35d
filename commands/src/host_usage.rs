//! What keeps a host from being removed: the applications on it, and operations on what one that holds
//! nothing there any more has left.

use proximity_domain::host::Host;
use proximity_domain::operation::Operation;
use proximity_domain::plan::Plan;
use proximity_domain::{HostId, OperationId};
use proximity_eventstore::{Guard, SideWrite, Store, tables};

use crate::actor::Metadata;
use crate::dispatch::{Retries, Unit};
use crate::error::Error;
use crate::rows::{text, unreadable};

/// Keeps the host until the operation has ended.
pub(crate) fn begin(unit: &mut Unit<'_>, operation: OperationId, host: HostId) {
    let row = vec![("application", text(operation)), ("host_id", text(host))];
    unit.write(SideWrite::Insert { table: &tables::HOST_USAGE, row });
}

/// The same for an operation that an older version has planned, which kept no host: its plan names it. A
/// host that is gone is not kept.
pub(crate) async fn keep(
    store: &Store,
    operation: OperationId,
    plan: &Plan,
    meta: Metadata,
) -> Result<(), Error> {
    let Some(guest) = plan.guest().filter(|_| plan.is_detached()) else { return Ok(()) };
    let filter = vec![("application", text(operation))];
    if !store.rows(&tables::HOST_USAGE, filter, 1).await.map_err(unreadable)?.is_empty() {
        return Ok(());
    }
    let mut retries = Retries::default();
    loop {
        let mut unit = Unit::new(store, meta.clone());
        let host = unit.load::<Host>(&guest.host.to_string()).await?;
        let state = unit.load::<Operation>(&operation.to_string()).await?;
        if host.registration().is_none() || state.progress().is_none() {
            return Ok(());
        }
        let row = vec![("application", text(operation)), ("host_id", text(guest.host))];
        unit.write(SideWrite::Upsert { table: &tables::HOST_USAGE, row });
        match unit.commit().await {
            Ok(_) => return Ok(()),
            Err(error) => retries.again(error.into()).await?,
        }
    }
}

/// The operation has ended. One whose application kept the host by itself has kept nothing.
pub(crate) fn end(unit: &mut Unit<'_>, operation: OperationId, plan: &Plan) {
    if plan.is_detached() || matches!(plan, Plan::BackupDelete(_)) {
        unit.write(let_go(operation));
    }
}

/// An application or an operation keeps its host no longer.
pub(crate) fn let_go(by: impl ToString) -> SideWrite {
    let filter = vec![("application", text(by.to_string()))];
    SideWrite::Delete { table: &tables::HOST_USAGE, filter, guard: Guard::None }
}
