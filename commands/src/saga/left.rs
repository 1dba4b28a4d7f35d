//! What a person is told of the volumes that an operation has left, and what is to be done about them.

use std::collections::BTreeSet;

use proximity_domain::NodeName;
use proximity_domain::plan::GuestRef;

use super::step::StepError;
use crate::ports::Volume;

/// A volume under the number that did not stand there before.
pub(super) struct Left {
    pub(super) node: NodeName,
    pub(super) storage: String,
    pub(super) volume: Volume,
    /// It is of the container that was to be overwritten.
    pub(super) is_replaced: bool,
    /// What stood there before is not known, and nothing shows that the operation has made it.
    pub(super) may_be_older: bool,
}

/// Stands in a reason before volumes that are removed once the lock is gone.
pub(super) const HAS_LEFT: &str = "it has left";
/// Stands in a reason before what is to be done about volumes.
pub(super) const TODO: &str = "; to be done: ";

/// What an operator has to do about volumes that are left, if this is the reason.
pub(super) fn rest_of_creation(reason: &str) -> Option<String> {
    reason.split_once(TODO).map(|(_, todo)| todo.to_owned())
}

pub(super) fn with_names(guest: &GuestRef, left: &[&Left], error: StepError) -> StepError {
    match error {
        StepError::Failed(mut failure) => {
            failure.message = named(guest, left, &failure.message);
            StepError::Failed(failure)
        }
        other => other,
    }
}

/// What is left, why it stays, and what is to be done.
pub(super) fn named(guest: &GuestRef, left: &[&Left], why: &str) -> String {
    let vmid = guest.vmid;
    let nodes: BTreeSet<&str> = left.iter().map(|left| left.node.as_str()).collect();
    let nodes = nodes.into_iter().collect::<Vec<_>>().join(" and ");
    let frees = left.iter().map(|left| format!("`pvesm free {}`", left.volume.id));
    let frees = frees.collect::<Vec<_>>().join(", ");
    format!(
        "{} under number {vmid}, which no guest has, is left of a creation that was broken off: \
         {why}{TODO}look on node {nodes} whose they are (`grep -rE -e '-{vmid}--?disk-' /etc/pve/nodes` tells \
         which guest has one); if nobody's, run {frees}, then resume the operation",
        listed(left)
    )
}

/// Their ids, as they stand in reasons: whoever resumes the operation agrees to what those name.
pub(super) fn listed(left: &[&Left]) -> String {
    let one = |left: &&Left| {
        let of = match left {
            Left { is_replaced: true, .. } => " (a disk of the container that was there before)",
            Left { may_be_older: true, .. } => " (which may have been there before)",
            Left { .. } => "",
        };
        format!("{}{of}", left.volume.id)
    };
    left.iter().map(one).collect::<Vec<_>>().join(", ")
}
