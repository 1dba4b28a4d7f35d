//! Routes of the version, the cluster, its nodes, their tasks and pools.

use super::Check::{All, Every};
use super::{PLAIN, PROTECTED, Route, route, run};
use crate::api::{cluster, node, pool, task};
use crate::params::formats::Format;
use crate::params::{boolean, choice, int, need, opt, text, vmid};

const TIMEFRAMES: &[&str] = &["hour", "day", "week", "month", "year", "decade"];

pub(super) fn routes() -> Vec<Route> {
    let mut table = vec![
        route("GET /version", "version", PLAIN, All, vec![], run!(cluster::version)),
        route(
            "GET /cluster/nextid",
            "cluster.nextid",
            PLAIN,
            All,
            vec![opt("vmid", vmid())],
            run!(cluster::nextid),
        ),
        route(
            "GET /cluster/resources",
            "cluster.resources",
            PLAIN,
            All,
            vec![opt("type", choice(&["vm", "storage", "node", "sdn"]))],
            run!(cluster::resources),
        ),
        route(
            "GET /cluster/status",
            "cluster.status",
            PROTECTED,
            Every("/", &["Sys.Audit"]),
            vec![],
            run!(cluster::status),
        ),
        route(
            "GET /cluster/options",
            "cluster.options",
            PLAIN,
            Every("/", &["Sys.Audit"]),
            vec![],
            run!(cluster::options),
        ),
        route("GET /cluster/tasks", "cluster.tasks", PLAIN, All, vec![], run!(task::cluster_list)),
        route("GET /nodes", "node.list", PLAIN, All, vec![], run!(node::list)),
        route(
            "GET /nodes/{node}/status",
            "node.status",
            PLAIN,
            Every("/nodes/{node}", &["Sys.Audit"]),
            vec![],
            run!(node::status),
        ),
        route(
            "GET /nodes/{node}/version",
            "node.version",
            PLAIN,
            All,
            vec![],
            run!(cluster::version),
        ),
        route(
            "GET /nodes/{node}/network",
            "node.network",
            PLAIN,
            All,
            vec![opt(
                "type",
                choice(&[
                    "bridge",
                    "bond",
                    "eth",
                    "alias",
                    "vlan",
                    "fabric",
                    "OVSBridge",
                    "OVSBond",
                    "OVSPort",
                    "OVSIntPort",
                    "vnet",
                    "any_bridge",
                    "any_local_bridge",
                    "include_sdn",
                ]),
            )],
            run!(node::network),
        ),
        route(
            "GET /nodes/{node}/rrddata",
            "node.rrddata",
            PROTECTED,
            Every("/nodes/{node}", &["Sys.Audit"]),
            vec![opt("cf", choice(&["AVERAGE", "MAX"])), need("timeframe", choice(TIMEFRAMES))],
            run!(node::rrddata),
        ),
        route(
            "GET /nodes/{node}/tasks",
            "task.list",
            PLAIN,
            All,
            vec![
                opt("errors", boolean()),
                opt("limit", int().at_least(0)),
                opt("since", int()),
                opt("source", choice(&["archive", "active", "all"])),
                opt("start", int().at_least(0)),
                opt("statusfilter", text()),
                opt("typefilter", text()),
                opt("until", int()),
                opt("userfilter", text()),
                opt("vmid", vmid()),
            ],
            run!(task::list),
        ),
        route("GET /nodes/{node}/tasks/{upid}", "task.show", PLAIN, All, vec![], run!(task::index)),
        route(
            "GET /nodes/{node}/tasks/{upid}/status",
            "task.status",
            PROTECTED,
            All,
            vec![],
            run!(task::status),
        ),
        route(
            "GET /nodes/{node}/tasks/{upid}/log",
            "task.log",
            PROTECTED,
            All,
            vec![
                opt("download", boolean()),
                opt("limit", int().at_least(0)),
                opt("start", int().at_least(0)),
            ],
            run!(task::log),
        ),
        route(
            "DELETE /nodes/{node}/tasks/{upid}",
            "task.stop",
            PROTECTED,
            All,
            vec![],
            run!(task::stop),
        ),
    ];
    table.extend(pools());
    table
}

fn pools() -> Vec<Route> {
    let members = || {
        vec![
            opt("allow-move", boolean()),
            opt("comment", text()),
            opt("delete", boolean()),
            opt("storage", text()),
            opt("vms", text().of(Format::VmidList)),
        ]
    };
    let mut of_update = members();
    of_update.push(need("poolid", text().of(Format::PoolId)));
    let kind = || opt("type", choice(&["qemu", "lxc", "storage"]));
    vec![
        route(
            "GET /pools",
            "pool.list",
            PLAIN,
            All,
            vec![opt("poolid", text().of(Format::PoolId)), kind().requires("poolid")],
            run!(pool::list),
        ),
        route(
            "POST /pools",
            "pool.create",
            PROTECTED,
            Every("/pool/{poolid}", &["Pool.Allocate"]),
            vec![opt("comment", text()), need("poolid", text().of(Format::PoolId))],
            run!(pool::create),
        ),
        route(
            "PUT /pools",
            "pool.update",
            PROTECTED,
            Every("/pool/{poolid}", &["Pool.Allocate"]),
            of_update,
            run!(pool::update),
        ),
        route(
            "DELETE /pools",
            "pool.delete",
            PROTECTED,
            Every("/pool/{poolid}", &["Pool.Allocate"]),
            vec![need("poolid", text().of(Format::PoolId))],
            run!(pool::delete),
        ),
        route(
            "GET /pools/{poolid}",
            "pool.show",
            PLAIN,
            Every("/pool/{poolid}", &["Pool.Audit"]),
            vec![kind()],
            run!(pool::show),
        ),
        route(
            "PUT /pools/{poolid}",
            "pool.update",
            PROTECTED,
            Every("/pool/{poolid}", &["Pool.Allocate"]),
            members(),
            run!(pool::update),
        ),
        route(
            "DELETE /pools/{poolid}",
            "pool.delete",
            PROTECTED,
            Every("/pool/{poolid}", &["Pool.Allocate"]),
            vec![],
            run!(pool::delete),
        ),
    ]
}
