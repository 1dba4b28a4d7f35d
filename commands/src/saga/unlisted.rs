//! Storages that do not take the content `images`: Proxmox counts a disk of which no container is there as
//! a virtual machine's, and lists of a storage only what it takes. So nothing lists what is left there.

use std::collections::BTreeSet;

use proximity_domain::plan::GuestRef;
use proximity_domain::{NodeName, Vmid};

use super::left::TODO;
use crate::ports::{Hypervisor, HypervisorError};

/// Said of such a storage; whoever resumes an operation whose reason said it has seen to it himself.
const LISTS_NONE: &str =
    "does not take the content `images`, so that Proxmox lists no disk there without its container";

/// Which of these storages of a node are such ones.
pub(crate) async fn unlisted(
    hypervisor: &dyn Hypervisor,
    node: &NodeName,
    storages: &BTreeSet<String>,
) -> Result<BTreeSet<String>, HypervisorError> {
    let there = hypervisor.storages(node).await?.into_iter();
    let there = there.filter(|storage| storages.contains(&storage.name) && !storage.lists_all());
    Ok(there.map(|storage| storage.name).collect())
}

/// What a reason says of one.
pub(super) fn said(storage: &str) -> String {
    format!("the storage {storage} {LISTS_NONE}")
}

/// Whether a reason says so of any.
pub(super) fn is_said(reason: &str) -> bool {
    reason.contains(LISTS_NONE)
}

/// What an operator has to do about it, in words that can be followed.
pub(super) fn remedy(vmid: Vmid) -> String {
    format!(
        "let the storage take the content `images` as well, so that what is left there is listed, or look \
         there (`lvs`, `zfs list` or `ls`) for disks whose names begin with `vm-{vmid}-disk-` or \
         `subvol-{vmid}-disk-`, and remove those that nobody needs with `pvesm free STORAGE:NAME`"
    )
}

/// Why nothing more is done about what may be left on these storages, and what is known of it.
pub(super) fn unseen(
    guest: &GuestRef,
    storages: &BTreeSet<String>,
    known: &BTreeSet<&str>,
) -> String {
    let GuestRef { node, vmid, .. } = guest;
    let said = storages.iter().map(|storage| said(storage)).collect::<Vec<_>>().join("; ");
    let known = known.iter().copied().collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { known } else { format!("; known of it: {known}") };
    format!(
        "{said}: what a creation that was broken off has left under number {vmid} cannot be told{known}\
         {TODO}on node {node}, {}; then resume the operation",
        remedy(*vmid)
    )
}
