//! How an application's events become its row.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proximity_domain::application::{Event, Loss, Origin, Requested};
use proximity_domain::plan::Kind as OperationKind;
use proximity_domain::{EnvValue, NodeName, OperationId, Port, Vmid};
use serde::{Deserialize, Serialize};

use super::{App, AppEndpoint, AppResources};
use crate::cell::{Cell, Column, Table};
use crate::projection::{At, Cannot, Projection};
use crate::text::Moment;

/// The projection `applications`.
pub struct Applications;

/// The row: what the API shows, and what only the fold and the queries need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub app: App,
    /// Position of its first event: the order of lists.
    born: u64,
    /// The operation that runs on it, or is stuck.
    operation: Option<OperationId>,
    kind: Option<OperationKind>,
    /// It was undone or given up: it holds nothing.
    hollow: bool,
    /// It is gone from lists; its row stays readable.
    removed: bool,
    /// The operation that makes it has ended well.
    complete: bool,
    /// Its container was not there when last looked for.
    lost: bool,
}

impl Projection for Applications {
    const NAME: &'static str = "applications";
    const VERSION: i32 = 3;
    const STREAM: &'static str = "application";
    const TABLE: Table = Table {
        name: "applications",
        key: Column::text("id"),
        columns: &[
            Column::integer("owner"),
            Column::text("status"),
            Column::text("search"),
            Column::integer("born"),
            Column::integer("removed"),
            Column::text("operation"),
            Column::integer("host_id"),
            Column::text("node"),
            Column::integer("memory_mb"),
            Column::text("body"),
        ],
        indexes: &["removed, born desc", "owner, removed, born desc", "host_id, removed", "status"],
    };

    type Event = Event;
    type Row = Row;

    fn apply(row: &mut Option<Row>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        match (row.as_mut(), event) {
            (None, Event::Requested(requested)) => *row = Some(requested_row(&requested, at)),
            (Some(_), Event::Requested(_)) => {
                return Err(Cannot(format!("{} was requested twice", at.id)));
            }
            (None, _) => return Err(Cannot(format!("{} was never requested", at.id))),
            (Some(row), event) => {
                change(row, event);
                row.app.version = at.sequence;
                row.app.updated_at = Moment(at.recorded_at);
            }
        }
        Ok(())
    }

    fn columns(row: &Row) -> Vec<Cell> {
        let app = &row.app;
        vec![
            app.owner.into(),
            app.status.as_str().into(),
            // Newline stands between, so that no term matches across the two.
            format!("{}\n{}", app.name.to_lowercase(), app.hostname).into(),
            i64::try_from(row.born).unwrap_or(i64::MAX).into(),
            row.removed.into(),
            row.operation.map(|id| id.to_string()).into(),
            app.host_id.into(),
            app.node.as_str().into(),
            i64::from(app.resources.memory_mb).into(),
        ]
    }

    fn is_final(row: &Row) -> bool {
        row.removed
    }
}

fn change(row: &mut Row, event: Event) {
    match event {
        // Handled above: it only ever comes first.
        Event::Requested(_) => {}
        Event::Deployed { operation: _, address }
        | Event::Started { operation: _, address }
        | Event::Restarted { operation: _, address } => {
            row.end("running", None);
            row.answers_at(address);
        }
        Event::CloneReady { operation: _, address, running }
        | Event::Adopted { operation: _, address, running } => {
            row.end(state(running), None);
            row.answers_at(address);
        }
        Event::Cloned { operation: _, into: _, running } => row.end(state(running), None),
        Event::Stopped { operation: _ } => row.end("stopped", None),
        Event::DeploymentFailed { operation: _, problem } => {
            row.empty();
            row.end("error", Some(problem));
        }
        Event::VmidReplaced { operation: _, from: _, to } => row.numbered(Some(to)),
        Event::GuestSwapped { operation: _, from: _, to } => {
            row.lives_on(&to.node);
            row.numbered(Some(to.vmid));
            row.lost = false;
        }
        Event::Restored { operation: _, backup: _, address, running } => {
            row.lost = false;
            row.end(state(running), None);
            row.answers_at(address);
        }
        Event::OperationBegan { operation, kind } => {
            row.operation = Some(operation);
            row.kind = Some(kind);
            row.app.problem = None;
            row.status(match kind {
                OperationKind::Deploy => "deploying",
                OperationKind::Delete => "removing",
                // One that is copied goes on; its copy is what says `cloning`.
                OperationKind::Start
                | OperationKind::Stop
                | OperationKind::Restart
                | OperationKind::Backup
                | OperationKind::BackupDelete
                | OperationKind::Restore
                | OperationKind::Clone => "updating",
                OperationKind::Adopt => "adopting",
            });
        }
        Event::OperationFailed { operation: _, kind: _, problem, running } => {
            let status = if row.hollow || row.lost { "error" } else { state(running) };
            row.end(status, Some(problem));
        }
        Event::OperationEnded { operation: _, kind: _, running } => {
            let status = if row.hollow || row.lost { "error" } else { state(running) };
            row.end(status, None);
        }
        // The operation stays: an operator can resume it.
        Event::OperationStuck { operation: _, problem } => {
            row.status("error");
            row.app.problem = Some(problem);
        }
        Event::OperationAbandoned { operation: _, problem, running: _ } => {
            if row.kind == Some(OperationKind::Delete) || !row.complete {
                row.empty();
            }
            row.end("error", Some(problem));
        }
        Event::Observed { node, running, address } => {
            row.lives_on(&node);
            row.answers_at(address);
            row.lost = false;
            row.app.problem = None;
            row.status(state(running));
        }
        Event::Lost(loss) => {
            row.lost = true;
            let (node, vmid) = (&row.app.node, row.app.vmid.unwrap_or_default());
            row.app.problem = Some(match loss {
                Loss::Gone => format!(
                    "its container {vmid} is gone from Proxmox, last seen on {node}: restore a \
                     backup, or delete the application"
                ),
                Loss::Replaced => format!(
                    "another guest has its number {vmid} now, and its own container is gone: restore \
                     a backup, or delete the application, which leaves that guest alone"
                ),
            });
            row.status("error");
        }
        // Of its container, and nothing that is shown.
        Event::Protected { operation: _ } => {}
        Event::Removed { operation: _ } => {
            row.removed = true;
            row.end("removing", None);
        }
    }
}

fn state(running: bool) -> &'static str {
    if running { "running" } else { "stopped" }
}

impl Row {
    /// Whether it is gone.
    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    /// The operation that runs on it, or is stuck.
    pub(super) fn operation(&self) -> Option<OperationId> {
        self.operation
    }

    fn status(&mut self, status: &str) {
        status.clone_into(&mut self.app.status);
    }

    /// The operation is over.
    fn end(&mut self, status: &str, problem: Option<String>) {
        self.complete |= problem.is_none();
        self.operation = None;
        self.kind = None;
        self.app.problem = problem;
        self.status(status);
    }

    /// Nothing is held for it any more; it can only be deleted.
    fn empty(&mut self) {
        self.hollow = true;
        self.numbered(None);
        self.app.public_port = None;
        self.app.internal_port = None;
        self.app.ports.clear();
        self.app.address = None;
    }

    fn numbered(&mut self, vmid: Option<Vmid>) {
        self.app.lxc_id = vmid.map(Vmid::get);
        self.app.vmid = self.app.lxc_id;
    }

    fn lives_on(&mut self, node: &NodeName) {
        self.app.node = node.to_string();
        self.app.node_name = node.to_string();
    }

    fn answers_at(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.app.address = Some(address.to_string());
        }
    }
}

fn shown(values: &BTreeMap<String, EnvValue>) -> BTreeMap<String, String> {
    values
        .iter()
        .map(|(name, value)| {
            let text = match value {
                EnvValue::Plain(text) => text.as_str(),
                EnvValue::Secret(_) => "[secret]",
            };
            (name.clone(), text.to_owned())
        })
        .collect()
}

fn requested_row(requested: &Requested, at: At<'_>) -> Row {
    let guest = &requested.guest;
    let holdings = &requested.holdings;
    let now = Moment(at.recorded_at);
    let vmid = Some(guest.vmid.get());
    let endpoint = requested.endpoint.as_ref();
    // An adopted container keeps its own.
    let own = endpoint.map(|endpoint| endpoint.port.get());
    let public_port = holdings.public_port.map(Port::get).or(own);
    let app = App {
        id: at.id.to_owned(),
        catalog_id: requested.catalog_id.clone(),
        catalog_app_id: requested.catalog_id.clone(),
        catalog_version: requested.catalog_version.clone(),
        node: guest.node.to_string(),
        node_name: guest.node.to_string(),
        lxc_id: vmid,
        vmid,
        name: requested.name.clone(),
        hostname: holdings.hostname.to_string(),
        status: match &requested.origin {
            Origin::Deployed => "deploying",
            Origin::Cloned { from: _ } => "cloning",
            Origin::Adopted => "adopting",
        }
        .to_owned(),
        url: None,
        iframe_url: None,
        public_port,
        internal_port: holdings.internal_port.map(Port::get).or(public_port),
        host_id: guest.host.0,
        owner: requested.owner.0,
        config: shown(&requested.config),
        environment: shown(&requested.environment),
        ports: endpoint
            .zip(public_port)
            .map(|(endpoint, public)| (endpoint.port.to_string(), public))
            .into_iter()
            .collect(),
        volumes: Vec::new(),
        icon: requested.icon.clone(),
        category: requested.category.clone(),
        description: requested.description.clone(),
        created_at: now,
        updated_at: now,
        cpu_usage: None,
        memory_used: None,
        memory_total: None,
        disk_used: None,
        disk_total: None,
        version: at.sequence,
        operation: None,
        problem: None,
        origin: match &requested.origin {
            Origin::Deployed => "deployed",
            Origin::Cloned { from: _ } => "cloned",
            Origin::Adopted => "adopted",
        }
        .to_owned(),
        address: holdings.address.map(|address| address.to_string()),
        endpoint: endpoint.map(|endpoint| AppEndpoint {
            port: endpoint.port.get(),
            protocol: endpoint.protocol.clone(),
            path: endpoint.path.clone(),
        }),
        resources: AppResources {
            cores: requested.resources.cores.get(),
            memory_mb: requested.resources.memory.get(),
            disk_gb: requested.resources.disk.get(),
            swap_mb: requested.resources.swap.get(),
        },
    };
    let operation = Some(requested.operation);
    Row {
        app,
        born: at.position,
        operation,
        kind: Some(requested.origin.kind()),
        hollow: false,
        removed: false,
        complete: false,
        lost: false,
    }
}
