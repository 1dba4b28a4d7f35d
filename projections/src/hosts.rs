//! The read model of hosts and of the nodes last seen on them; a credential is never in here.

use proximity_domain::host::{Auth, Connection, Event, ObservedNode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cell::{Cell, Column, Table};
use crate::error::Error;
use crate::projection::{At, Cannot, Projection};
use crate::text::Moment;
use crate::views::Views;

/// The projection `hosts`.
pub struct Hosts;

/// A registered host as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// 1, 2, 3 …
    pub id: i64,
    /// What a person reads; unique.
    pub name: String,
    /// Host name or IP address.
    pub host: String,
    /// Of its API.
    pub port: u16,
    /// E.g. `root@pam`.
    pub user: String,
    /// Of its API.
    pub url: String,
    /// Whether its certificate has to come from a known authority; else it is pinned.
    pub verify_ssl: bool,
    /// Whether deployments may go there.
    pub is_active: bool,
    /// Whether deployments go there when no host is named.
    pub is_default: bool,
    /// RFC 3339; when it last answered, as far as the server that is asked knows.
    #[schema(value_type = Option<String>)]
    pub last_seen: Option<Moment>,
    /// SHA-256 of the pinned certificate.
    pub fingerprint: Option<String>,
    /// `password` or `token`.
    pub auth: String,
    /// For later use.
    pub ssh_port: u16,
    /// What makes its VMIDs unique.
    pub cluster: String,
    /// Why it is not active, when it was suspended.
    pub problem: Option<String>,
    /// Nodes last seen.
    pub total_nodes: usize,
    /// Those of them that are online.
    pub online_nodes: usize,
    /// Cores of all nodes; not known is null.
    pub total_cpu: Option<u32>,
    /// Bytes.
    pub total_memory: Option<u64>,
    /// Bytes.
    pub total_storage: Option<u64>,
    /// How many events it has; the entity tag.
    pub version: u64,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub created_at: Moment,
    /// RFC 3339.
    #[schema(value_type = String)]
    pub updated_at: Moment,
}

/// A node as the API shows it; what is only known live is the server's to fill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Stable as long as the host is registered.
    pub id: i64,
    /// The registered host.
    pub host_id: i64,
    /// The host's name.
    pub host_name: String,
    /// As Proxmox calls it.
    pub name: String,
    /// `online` or `offline`.
    pub status: String,
    /// Cores.
    pub cpu_count: Option<u32>,
    /// Share of its cores, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub storage_total: Option<u64>,
    /// Bytes.
    pub storage_used: Option<u64>,
    /// Seconds.
    pub uptime: Option<u64>,
    /// Release of Proxmox VE.
    pub pve_version: Option<String>,
}

/// The row: the host, and its nodes with the numbers that they keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    host: Host,
    nodes: Vec<Seen>,
    /// How many different nodes were ever seen.
    numbered: i64,
    removed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    number: i64,
    node: ObservedNode,
    /// Absent from the last look.
    gone: bool,
}

/// A node's id is its host's id times this, plus its number on the host.
const NODES_PER_HOST: i64 = 100_000;

impl Projection for Hosts {
    const NAME: &'static str = "hosts";
    const VERSION: i32 = 1;
    const STREAM: &'static str = "host";
    const TABLE: Table = Table {
        name: "hosts",
        key: Column::text("id"),
        columns: &[
            Column::integer("number"),
            Column::integer("is_default"),
            Column::text("name"),
            Column::integer("removed"),
            Column::text("body"),
        ],
        indexes: &[],
    };

    type Event = Event;
    type Row = Row;

    fn apply(row: &mut Option<Row>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        let now = Moment(at.recorded_at);
        match (row.as_mut(), event) {
            (None, Event::Registered { connection, cluster, is_default }) => {
                let id = at.id.parse().map_err(|_| Cannot(format!("{:?} is no host id", at.id)))?;
                let mut host = blank(id, cluster.to_string(), now);
                host.is_default = is_default;
                connect(&mut host, &connection);
                host.version = at.sequence;
                *row = Some(Row { host, nodes: Vec::new(), numbered: 0, removed: false });
            }
            (Some(_), Event::Registered { .. }) => {
                return Err(Cannot(format!("host {} was registered twice", at.id)));
            }
            (None, _) => return Err(Cannot(format!("host {} was never registered", at.id))),
            (Some(row), event) => {
                match event {
                    // Handled above: it only ever comes first.
                    Event::Registered { .. } => {}
                    Event::Changed { connection, is_active, is_default } => {
                        connect(&mut row.host, &connection);
                        row.host.is_active = is_active;
                        row.host.is_default = is_default;
                        if is_active {
                            row.host.problem = None;
                        }
                    }
                    Event::NodesObserved { nodes } => {
                        row.observe(nodes);
                        row.host.last_seen = Some(now);
                    }
                    // Asked for by themselves, of the log.
                    Event::DiscrepanciesObserved { .. } => {}
                    Event::Suspended { reason } => {
                        row.host.is_active = false;
                        row.host.problem = Some(reason);
                    }
                    Event::Removed => row.removed = true,
                }
                row.host.version = at.sequence;
                row.host.updated_at = now;
            }
        }
        Ok(())
    }

    fn columns(row: &Row) -> Vec<Cell> {
        vec![
            row.host.id.into(),
            row.host.is_default.into(),
            row.host.name.to_lowercase().into(),
            row.removed.into(),
        ]
    }

    fn is_final(row: &Row) -> bool {
        row.removed
    }
}

fn blank(id: i64, cluster: String, now: Moment) -> Host {
    Host {
        id,
        name: String::new(),
        host: String::new(),
        port: 0,
        user: String::new(),
        url: String::new(),
        verify_ssl: true,
        is_active: true,
        is_default: false,
        last_seen: None,
        fingerprint: None,
        auth: String::new(),
        ssh_port: 0,
        cluster,
        problem: None,
        total_nodes: 0,
        online_nodes: 0,
        total_cpu: None,
        total_memory: None,
        total_storage: None,
        version: 0,
        created_at: now,
        updated_at: now,
    }
}

fn connect(host: &mut Host, connection: &Connection) {
    host.name.clone_from(&connection.name);
    host.host.clone_from(&connection.address);
    host.port = connection.port.get();
    host.user.clone_from(&connection.user);
    host.verify_ssl = connection.verify_ssl;
    host.fingerprint = connection.fingerprint.as_ref().map(ToString::to_string);
    host.ssh_port = connection.ssh_port.get();
    host.auth = match &connection.auth {
        Auth::Password => "password",
        Auth::Token { id: _ } => "token",
    }
    .to_owned();
    let address = if connection.address.contains(':') {
        format!("[{}]", connection.address)
    } else {
        connection.address.clone()
    };
    host.url = format!("https://{address}:{}", connection.port);
}

impl Row {
    /// A node that comes back keeps its number.
    fn observe(&mut self, nodes: Vec<ObservedNode>) {
        for seen in &mut self.nodes {
            seen.gone = true;
        }
        for node in nodes {
            match self.nodes.iter_mut().find(|seen| seen.node.name == node.name) {
                Some(seen) => {
                    seen.node = node;
                    seen.gone = false;
                }
                None => {
                    self.numbered += 1;
                    self.nodes.push(Seen { number: self.numbered, node, gone: false });
                }
            }
        }
        let present = || self.nodes.iter().filter(|seen| !seen.gone).map(|seen| &seen.node);
        self.host.total_nodes = present().count();
        self.host.online_nodes = present().filter(|node| node.online).count();
        self.host.total_cpu = present().filter_map(|node| node.cores).reduce(|a, b| a + b);
        self.host.total_memory =
            present().filter_map(|node| node.memory_total).reduce(|a, b| a + b);
        self.host.total_storage = present().filter_map(|node| node.disk_total).reduce(|a, b| a + b);
    }

    fn shown_nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.nodes.iter().filter(|seen| !seen.gone).map(|seen| Node {
            id: self.host.id * NODES_PER_HOST + seen.number,
            host_id: self.host.id,
            host_name: self.host.name.clone(),
            name: seen.node.name.to_string(),
            status: if seen.node.online { "online" } else { "offline" }.to_owned(),
            cpu_count: seen.node.cores,
            cpu_usage: None,
            memory_total: seen.node.memory_total,
            memory_used: None,
            storage_total: seen.node.disk_total,
            storage_used: None,
            uptime: None,
            pve_version: seen.node.version.clone(),
        })
    }
}

impl Views {
    async fn host_rows(&self, filter: &str, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let sql = format!(
            "select body from hosts where removed = 0 {filter} order by is_default desc, name, number"
        );
        self.bodies(&sql, cells, "hosts").await
    }

    /// All registered hosts: the default one first, then by name in any case.
    pub async fn hosts(&self) -> Result<Vec<Host>, Error> {
        let rows = self.host_rows("", Vec::new()).await?;
        Ok(rows.into_iter().map(|row| row.host).collect())
    }

    /// One registered host.
    pub async fn host(&self, id: i64) -> Result<Option<Host>, Error> {
        let rows = self.host_rows("and id = $1", vec![id.to_string().into()]).await?;
        Ok(rows.into_iter().map(|row| row.host).next())
    }

    /// The nodes last seen, of all hosts or of one, in the order of hosts and then by name.
    pub async fn nodes(&self, host: Option<i64>) -> Result<Vec<Node>, Error> {
        let rows = match host {
            Some(id) => self.host_rows("and id = $1", vec![id.to_string().into()]).await?,
            None => self.host_rows("", Vec::new()).await?,
        };
        let sorted = |row: &Row| {
            let mut nodes: Vec<Node> = row.shown_nodes().collect();
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            nodes
        };
        Ok(rows.iter().flat_map(sorted).collect())
    }
}
