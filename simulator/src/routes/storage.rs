//! Routes of storages, their content, templates, OCI images and backups.

use super::Check::{All, Any, Every};
use super::{Check, PLAIN, PROTECTED, Route, route, run};
use crate::api::{backup, content, storage};
use crate::params::formats::Format;
use crate::params::{Kind, Param, boolean, choice, int, need, num, opt, text, vmid};

const READ: Check = Any("/storage/{storage}", &["Datastore.Audit", "Datastore.AllocateSpace"]);
const TIMEFRAMES: &[&str] = &["hour", "day", "week", "month", "year"];

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(
            "GET /storage",
            "storage.config",
            PLAIN,
            All,
            vec![opt(
                "type",
                choice(&[
                    "btrfs",
                    "cephfs",
                    "cifs",
                    "dir",
                    "esxi",
                    "iscsi",
                    "iscsidirect",
                    "lvm",
                    "lvmthin",
                    "nfs",
                    "pbs",
                    "rbd",
                    "zfs",
                    "zfspool",
                ]),
            )],
            run!(storage::config),
        ),
        route(
            "GET /nodes/{node}/storage",
            "storage.list",
            PROTECTED,
            All,
            vec![
                opt("content", text().of(Format::ContentList)),
                opt("enabled", boolean()),
                opt("format", boolean()),
                opt("storage", text().of(Format::StorageId)),
                opt("target", text()),
            ],
            run!(storage::list),
        ),
        route(
            "GET /nodes/{node}/storage/{storage}",
            "storage.index",
            PLAIN,
            READ,
            vec![],
            run!(storage::index),
        ),
        route(
            "GET /nodes/{node}/storage/{storage}/status",
            "storage.status",
            PROTECTED,
            READ,
            vec![],
            run!(storage::status),
        ),
        route(
            "GET /nodes/{node}/storage/{storage}/rrddata",
            "storage.rrddata",
            PROTECTED,
            READ,
            vec![opt("cf", choice(&["AVERAGE", "MAX"])), need("timeframe", choice(TIMEFRAMES))],
            run!(storage::rrddata),
        ),
        route(
            "GET /nodes/{node}/storage/{storage}/content",
            "content.list",
            PROTECTED,
            READ,
            vec![opt("content", text().of(Format::ContentList)), opt("vmid", vmid())],
            run!(content::list),
        ),
        route(
            "GET /nodes/{node}/storage/{storage}/content/{volume}",
            "content.show",
            PROTECTED,
            All,
            vec![],
            run!(content::show),
        ),
        route(
            "PUT /nodes/{node}/storage/{storage}/content/{volume}",
            "content.update",
            PROTECTED,
            All,
            vec![opt("notes", text()), opt("protected", boolean())],
            run!(content::update),
        ),
        route(
            "DELETE /nodes/{node}/storage/{storage}/content/{volume}",
            "content.delete",
            PROTECTED,
            All,
            vec![opt("delay", int().at_least(1).at_most(30))],
            run!(content::delete),
        ),
        route(
            "GET /nodes/{node}/aplinfo",
            "template.index",
            PLAIN,
            All,
            vec![],
            run!(content::appliances),
        ),
        route(
            "POST /nodes/{node}/aplinfo",
            "template.download",
            PROTECTED,
            Every("/storage/{storage}", &["Datastore.AllocateTemplate"]),
            vec![
                need("storage", text().of(Format::StorageId)),
                need("template", text().at_most(255)),
            ],
            run!(content::download),
        ),
        route(
            "POST /nodes/{node}/storage/{storage}/oci-registry-pull",
            "oci.pull",
            PROTECTED,
            Every("/storage/{storage}", &["Datastore.AllocateTemplate"]),
            vec![
                opt("filename", text().at_least(1).at_most(255)),
                need("reference", text().of(Format::OciReference)),
            ],
            run!(content::pull),
        ),
        route(
            "POST /nodes/{node}/storage/{storage}/download-url",
            "content.download_url",
            PROTECTED,
            Every("/storage/{storage}", &["Datastore.AllocateTemplate"]),
            vec![
                opt("checksum", text()).requires("checksum-algorithm"),
                opt(
                    "checksum-algorithm",
                    choice(&["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]),
                )
                .requires("checksum"),
                opt("compression", text()),
                need("content", choice(&["iso", "vztmpl", "import"])),
                need("filename", text().at_most(255)),
                need("url", text()),
                opt("verify-certificates", boolean()),
            ],
            run!(content::download_url),
        ),
        route(
            "POST /nodes/{node}/vzdump",
            "backup.create",
            PROTECTED,
            All,
            vzdump(),
            run!(backup::create),
        ),
        route(
            "GET /nodes/{node}/vzdump/defaults",
            "backup.defaults",
            PLAIN,
            All,
            vec![opt("storage", text().of(Format::StorageId))],
            run!(backup::defaults),
        ),
        route(
            "GET /nodes/{node}/vzdump/extractconfig",
            "backup.config",
            PROTECTED,
            All,
            vec![need("volume", text())],
            run!(backup::extract_config),
        ),
    ]
}

fn vzdump() -> Vec<Param> {
    vec![
        opt("all", boolean()),
        opt("bwlimit", int().at_least(0)),
        opt("compress", choice(&["0", "1", "gzip", "lzo", "zstd"])),
        opt("dumpdir", text()),
        opt("exclude", text().of(Format::VmidList)),
        opt("exclude-path", Kind::List),
        opt("fleecing", text()),
        opt("ionice", int().at_least(0).at_most(8)),
        opt("job-id", text().at_most(50)),
        opt("lockwait", int().at_least(0)),
        opt("mailnotification", choice(&["always", "failure"])),
        opt("mailto", text()),
        opt("maxfiles", int().at_least(1)),
        opt("mode", choice(&["snapshot", "suspend", "stop"])),
        opt("notes-template", text().at_most(1_024)).requires("storage"),
        opt("notification-mode", choice(&["auto", "legacy-sendmail", "notification-system"])),
        opt("pbs-change-detection-mode", choice(&["legacy", "data", "metadata"])),
        opt("performance", text()),
        opt("pigz", int()),
        opt("pool", text()),
        opt("protected", boolean()).requires("storage"),
        opt("prune-backups", text()),
        opt("quiet", boolean()),
        opt("remove", boolean()),
        opt("script", text()),
        opt("stdexcludes", boolean()),
        opt("stdout", boolean()),
        opt("stop", boolean()),
        opt("stopwait", int().at_least(0)),
        opt("storage", text().of(Format::StorageId)),
        opt("tmpdir", text()),
        opt("vmid", text().of(Format::VmidList)),
        opt("zstd", int()),
    ]
}

/// The bandwidth limit that create, clone and restore take.
pub(super) fn bwlimit() -> Param {
    opt("bwlimit", num().at_least(0))
}
