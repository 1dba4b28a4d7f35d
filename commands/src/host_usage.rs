//! What keeps a host from being removed: the applications on it, and operations on what one that holds
//! nothing there any more has left.

use proximity_domain::plan::Plan;
use proximity_domain::{HostId, OperationId};
use proximity_eventstore::{Guard, SideWrite, tables};

use crate::dispatch::Unit;
use crate::rows::text;

/// Keeps the host until the operation has ended.
pub(crate) fn begin(unit: &mut Unit<'_>, operation: OperationId, host: HostId) {
    let row = vec![("application", text(operation)), ("host_id", text(host))];
    unit.write(SideWrite::Insert { table: &tables::HOST_USAGE, row });
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
