//! Routes of containers: life cycle, configuration, snapshots and clones.

use super::Check::{All, Any, Every};
use super::storage::bwlimit;
use super::{Check, PLAIN, PROTECTED, Route, route, run};
use crate::api::{clone, config, create, destroy, lxc, power, snapshot};
use crate::params::formats::Format;
use crate::params::{Param, boolean, choice, int, need, num, opt, text, vmid};

const AUDIT: Check = Every("/vms/{vmid}", &["VM.Audit"]);
const POWER: Check = Every("/vms/{vmid}", &["VM.PowerMgmt"]);
const SNAPSHOT: Check = Every("/vms/{vmid}", &["VM.Snapshot"]);
const TIMEFRAMES: &[&str] = &["hour", "day", "week", "month", "year"];

pub(super) fn routes() -> Vec<Route> {
    let mut table = life_cycle();
    table.extend(reading());
    table.extend(snapshots());
    table
}

fn life_cycle() -> Vec<Route> {
    let skiplock = || opt("skiplock", boolean());
    vec![
        route(
            "POST /nodes/{node}/lxc",
            "container.create",
            PROTECTED,
            All,
            creation(),
            run!(create::create),
        ),
        route(
            "DELETE /nodes/{node}/lxc/{vmid}",
            "container.destroy",
            PROTECTED,
            Every("/vms/{vmid}", &["VM.Allocate"]),
            vec![
                opt("destroy-unreferenced-disks", boolean()),
                opt("force", boolean()),
                opt("purge", boolean()),
            ],
            run!(destroy::destroy),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/status/start",
            "container.start",
            PROTECTED,
            POWER,
            vec![opt("debug", boolean()), skiplock()],
            run!(power::start),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/status/stop",
            "container.stop",
            PROTECTED,
            POWER,
            vec![opt("overrule-shutdown", boolean()), skiplock()],
            run!(power::stop),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/status/shutdown",
            "container.shutdown",
            PROTECTED,
            POWER,
            vec![opt("forceStop", boolean()), opt("timeout", int().at_least(0))],
            run!(power::shutdown),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/status/reboot",
            "container.reboot",
            PROTECTED,
            POWER,
            vec![opt("timeout", int().at_least(0))],
            run!(power::reboot),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/status/suspend",
            "container.suspend",
            PROTECTED,
            POWER,
            vec![],
            run!(power::suspend),
        ),
        route(
            "PUT /nodes/{node}/lxc/{vmid}/config",
            "container.configure",
            PROTECTED,
            Any(
                "/vms/{vmid}",
                &[
                    "VM.Config.Disk",
                    "VM.Config.CPU",
                    "VM.Config.Memory",
                    "VM.Config.Network",
                    "VM.Config.Options",
                ],
            ),
            changes(),
            run!(config::put),
        ),
        route(
            "PUT /nodes/{node}/lxc/{vmid}/resize",
            "container.resize",
            PROTECTED,
            Every("/vms/{vmid}", &["VM.Config.Disk"]),
            vec![
                opt("digest", text().at_most(40)),
                need("disk", text()),
                need("size", text().of(Format::Size)),
            ],
            run!(config::resize),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/template",
            "container.template",
            PROTECTED,
            Every("/vms/{vmid}", &["VM.Allocate"]),
            vec![],
            run!(clone::template),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/clone",
            "container.clone",
            PROTECTED,
            Every("/vms/{vmid}", &["VM.Clone"]),
            vec![
                bwlimit(),
                opt("description", text()),
                opt("full", boolean()),
                opt("hostname", text().of(Format::DnsName)),
                need("newid", vmid()),
                opt("pool", text().of(Format::PoolId)),
                opt("snapname", text().at_most(40).of(Format::ConfigId)),
                opt("storage", text().of(Format::StorageId)),
                opt("target", text()),
            ],
            run!(clone::clone),
        ),
    ]
}

fn reading() -> Vec<Route> {
    vec![
        route("GET /nodes/{node}/lxc", "container.list", PROTECTED, All, vec![], run!(lxc::list)),
        route(
            "GET /nodes/{node}/lxc/{vmid}",
            "container.index",
            PLAIN,
            All,
            vec![],
            run!(lxc::index),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/config",
            "container.config",
            PLAIN,
            AUDIT,
            vec![
                opt("current", boolean()),
                opt("snapshot", text().at_most(40).of(Format::ConfigId)),
            ],
            run!(config::get),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/pending",
            "container.pending",
            PLAIN,
            AUDIT,
            vec![],
            run!(config::pending),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/status/current",
            "container.status",
            PROTECTED,
            AUDIT,
            vec![],
            run!(lxc::status),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/interfaces",
            "container.interfaces",
            PROTECTED,
            AUDIT,
            vec![],
            run!(lxc::interfaces),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/rrddata",
            "container.rrddata",
            PROTECTED,
            AUDIT,
            vec![opt("cf", choice(&["AVERAGE", "MAX"])), need("timeframe", choice(TIMEFRAMES))],
            run!(lxc::rrddata),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/feature",
            "container.feature",
            PROTECTED,
            AUDIT,
            vec![
                need("feature", choice(&["snapshot", "clone", "copy"])),
                opt("snapname", text().at_most(40).of(Format::ConfigId)),
            ],
            run!(lxc::feature),
        ),
    ]
}

fn snapshots() -> Vec<Route> {
    vec![
        route(
            "GET /nodes/{node}/lxc/{vmid}/snapshot",
            "snapshot.list",
            PROTECTED,
            AUDIT,
            vec![],
            run!(snapshot::list),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/snapshot",
            "snapshot.create",
            PROTECTED,
            SNAPSHOT,
            vec![
                opt("description", text()),
                need("snapname", text().at_most(40).of(Format::ConfigId)),
            ],
            run!(snapshot::create),
        ),
        route(
            "GET /nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config",
            "snapshot.config",
            PLAIN,
            Any("/vms/{vmid}", &["VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit"]),
            vec![],
            run!(snapshot::config),
        ),
        route(
            "POST /nodes/{node}/lxc/{vmid}/snapshot/{snapname}/rollback",
            "snapshot.rollback",
            PROTECTED,
            Any("/vms/{vmid}", &["VM.Snapshot", "VM.Snapshot.Rollback"]),
            vec![opt("start", boolean())],
            run!(snapshot::rollback),
        ),
        route(
            "DELETE /nodes/{node}/lxc/{vmid}/snapshot/{snapname}",
            "snapshot.delete",
            PROTECTED,
            SNAPSHOT,
            vec![opt("force", boolean())],
            run!(snapshot::delete),
        ),
    ]
}

/// What create and configure have in common: everything that stands in a configuration.
fn properties() -> Vec<Param> {
    vec![
        opt("arch", choice(&["amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"])),
        opt("cmode", choice(&["shell", "console", "tty"])),
        opt("console", boolean()),
        opt("cores", int().at_least(1).at_most(8_192)),
        opt("cpulimit", num().at_least(0).at_most(8_192)),
        opt("cpuunits", int().at_least(0).at_most(500_000)),
        opt("debug", boolean()),
        opt("description", text().at_most(8_192)),
        opt("dev[n]", text()),
        opt("entrypoint", text().of(Format::Entrypoint)),
        opt("env", text().of(Format::Environment)),
        opt("features", text().of(Format::Features)),
        opt("hookscript", text()),
        opt("hostname", text().at_most(255).of(Format::DnsName)),
        opt(
            "lock",
            choice(&[
                "backup",
                "create",
                "destroyed",
                "disk",
                "fstrim",
                "migrate",
                "mounted",
                "rollback",
                "snapshot",
                "snapshot-delete",
            ]),
        ),
        opt("memory", int().at_least(16)),
        opt("mp[n]", text().of(Format::MountPoint)),
        opt("nameserver", text()),
        opt("net[n]", text().of(Format::Net)),
        opt("onboot", boolean()),
        opt(
            "ostype",
            choice(&[
                "debian",
                "devuan",
                "ubuntu",
                "centos",
                "fedora",
                "opensuse",
                "archlinux",
                "alpine",
                "gentoo",
                "nixos",
                "unmanaged",
            ]),
        ),
        opt("protection", boolean()),
        opt("rootfs", text().of(Format::Rootfs)),
        opt("searchdomain", text()),
        opt("startup", text()),
        opt("swap", int().at_least(0)),
        opt("tags", text().of(Format::TagList)),
        opt("template", boolean()),
        opt("timezone", text()),
        opt("tty", int().at_least(0).at_most(6)),
        opt("unprivileged", boolean()),
        opt("unused[n]", text()),
    ]
}

fn creation() -> Vec<Param> {
    let mut params = properties();
    params.extend([
        bwlimit(),
        opt("force", boolean()),
        opt("ha-managed", boolean()),
        opt("ignore-unpack-errors", boolean()),
        need("ostemplate", text().at_most(255)),
        opt("password", text().at_least(5)),
        opt("pool", text().of(Format::PoolId)),
        opt("restore", boolean()),
        opt("ssh-public-keys", text()),
        opt("start", boolean()),
        opt("storage", text().of(Format::StorageId)),
        opt("unique", boolean()).requires("restore"),
        need("vmid", vmid()),
    ]);
    params
}

fn changes() -> Vec<Param> {
    let mut params = properties();
    params.extend([
        opt("delete", text().of(Format::ConfigIdList)),
        opt("digest", text().at_most(40)),
        opt("revert", text().of(Format::ConfigIdList)),
    ]);
    params
}
