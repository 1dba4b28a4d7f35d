//! A host compared with the log: now, and what a person has to look at.

use proximity_commands::policy::Admin;
use proximity_domain::HostId;
use proximity_domain::host::{Discrepancy, DiscrepancyKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::hosts;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// What one look at a host came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reconciled {
    /// Applications of this host that were compared; those with a running operation are left alone.
    pub compared: usize,
    /// Applications that were found otherwise than recorded: stopped, started, moved or removed by hand.
    pub changed: Vec<String>,
    /// Operations that remove containers which the log says were undone or deleted.
    pub removals: Vec<String>,
    /// What a person has to look at.
    pub discrepancies: Vec<Strange>,
    /// Why nothing was taken for gone: no quorum, a credential that may not see every guest, an empty
    /// list. Null when the look could tell.
    pub inconclusive: Option<String>,
}

/// What a person has to look at.
#[derive(Debug, Serialize, ToSchema)]
pub struct Discrepancies {
    /// By number.
    pub discrepancies: Vec<Strange>,
}

/// A guest that is not as the log says, or a volume that none has; neither is touched.
#[derive(Debug, Serialize, ToSchema)]
pub struct Strange {
    /// Its number.
    pub vmid: u32,
    /// Where it is.
    pub node: String,
    /// `orphan`: it carries our marker, and no application has it. `stranger`: it has an application's
    /// number, and is not that application's. `renamed`: it was given another host name by hand.
    /// `broken_off`: the creation of an application's container, a restore over it, or its destruction was
    /// broken off, and has left a lock and nothing else. `left_over`: no guest has the number nor the volume, which an
    /// operation has left that was given up, undone, or has taken another number. `left_snapshot`: a
    /// copying of the application's container that was given up has left its snapshot on it.
    #[schema(example = "orphan")]
    pub kind: &'static str,
    /// The application that it was made for, or whose number it has.
    pub application: String,
    /// Of a `left_over`: the storage that the volume is on. Null otherwise.
    pub storage: Option<String>,
    /// Of a `left_over`: the volume's id. Null otherwise.
    #[schema(example = "local:104/vm-104-disk-0.raw")]
    pub volume: Option<String>,
    /// Of a `left_snapshot`: its name. Null otherwise.
    #[schema(example = "px0198f2a17c4b7d3e8a90b1c2d3e4f506")]
    pub snapshot: Option<String>,
    /// Of a `left_over` and a `left_snapshot`: the operation that has left it. Null otherwise.
    pub operation: Option<String>,
    /// What can be done about it.
    pub advice: String,
}

impl From<Discrepancy> for Strange {
    fn from(found: Discrepancy) -> Self {
        let Discrepancy { vmid, node, kind, application, volume, snapshot } = found;
        let (kind, advice) = match kind {
            DiscrepancyKind::Orphan => (
                "orphan",
                format!(
                    "container {vmid} was made for {application}, which has no use for it; look at \
                     it, then, once it is stopped, remove it with `pct set {vmid} --protection 0 && \
                     pct destroy {vmid}` on node {node}, or, to adopt it again, take the line that starts \
                     with `proximity/` out of its notes"
                ),
            ),
            DiscrepancyKind::Stranger => (
                "stranger",
                format!(
                    "guest {vmid} is not {application}'s although it has its number: restore a \
                     backup of the application, or delete it; the guest stays as it is"
                ),
            ),
            DiscrepancyKind::Renamed => (
                "renamed",
                format!(
                    "container {vmid} has another host name than {application}; give it its name \
                     back with `pct set {vmid} --hostname`, or leave it"
                ),
            ),
            DiscrepancyKind::BrokenOff => (
                "broken_off",
                format!(
                    "the making or the removal of container {vmid} for {application} was broken off, and what is left \
                     is a lock that no task works on: on node {node} run `pct unlock {vmid} && \
                     pct destroy {vmid} --purge`, of a copy with `pct set {vmid} --protection 0` in \
                     between; an application that it was restored over can then be deleted, and be \
                     restored from a backup (not in place) before that, too; the container that it is a \
                     copy of may still be locked as well"
                ),
            ),
            DiscrepancyKind::LeftOver => {
                let id = volume.as_ref().map_or("it", |volume| &volume.id);
                (
                    "left_over",
                    format!(
                        "{id} is what an operation on {application} has left under number {vmid}: on node \
                         {node} see with `grep -rE -e '-{vmid}--?disk-' /etc/pve/nodes` that no guest has it \
                         and that nobody needs what is on it, then run `pvesm free {id}`"
                    ),
                )
            }
            DiscrepancyKind::LeftSnapshot => {
                let name = snapshot.as_ref().map_or("its name", |snapshot| &snapshot.name);
                (
                    "left_snapshot",
                    format!(
                        "snapshot {name} of container {vmid} was made for a copy of {application} that \
                         was given up: once no task works on the container, run `pct delsnapshot {vmid} \
                         {name}` on node {node}, and `pct unlock {vmid}` before that if making or removing \
                         the snapshot has left a lock"
                    ),
                )
            }
        };
        let operation = volume.as_ref().map(|volume| volume.operation);
        let operation = operation.or_else(|| snapshot.as_ref().map(|snapshot| snapshot.operation));
        let (storage, volume) = volume.map(|volume| (volume.storage, volume.id)).unzip();
        Self {
            vmid: vmid.get(),
            node: node.to_string(),
            kind,
            application: application.to_string(),
            storage,
            volume,
            snapshot: snapshot.map(|snapshot| snapshot.name),
            operation: operation.map(|operation| operation.to_string()),
            advice,
        }
    }
}

/// Compares a host with the log now, as happens every minute.
#[utoipa::path(post, path = "/api/proxmox/hosts/{id}/reconcile", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 200, description = "What it came to", body = Reconciled)))]
pub async fn now(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let host: HostId = call.param("id")?;
    hosts::unchanged(&call, host).await?;
    let found = call.app.commands.reconciler.reconcile(host, admin.actor()).await;
    let found = found.map_err(|error| Problem::for_admin(&admin, error))?;
    if let Some(position) = found.position {
        call.app.seen(position).await;
    }
    let answer = Reconciled {
        compared: found.compared,
        changed: found.changed.iter().map(ToString::to_string).collect(),
        removals: found.removals.iter().map(ToString::to_string).collect(),
        discrepancies: found.discrepancies.into_iter().map(Strange::from).collect(),
        inconclusive: found.inconclusive.map(str::to_owned),
    };
    Ok(Reply::json(&answer)?.at(found.position))
}

/// What the last looks at a host found that a person has to look at.
#[utoipa::path(get, path = "/api/proxmox/hosts/{id}/discrepancies", tag = "proxmox", params(("id" = i64, Path, description = "The host's id")), responses((status = 200, description = "All of them", body = Discrepancies)))]
pub async fn discrepancies(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let found = call.app.commands.reconciler.discrepancies(&admin, call.param("id")?).await?;
    let discrepancies = found.into_iter().map(Strange::from).collect();
    Reply::json(&Discrepancies { discrepancies })
}
