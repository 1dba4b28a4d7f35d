//! Turns the data of each reply into the port's types.

use std::net::IpAddr;

use proximity_commands::ports::*;
use proximity_commands::redact::without_secrets;
use proximity_domain::Vmid;
use serde_json::Value;

use crate::request::call;
use crate::row::{Row, malformed, rows};
use crate::upid;

type Result<T> = std::result::Result<T, HypervisorError>;

/// `9.1.7`, `8.4.1` or `7.4-17`.
pub(crate) fn version(data: &Value) -> Result<Version> {
    let text = Row::of(call::VERSION, data)?.text("version")?;
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) => Ok(Version { text, major, minor }),
        _ => Err(malformed(call::VERSION, "`version` is not a release")),
    }
}

pub(crate) fn nodes(data: &Value) -> Result<Vec<Node>> {
    let node = |row: Row<'_>| {
        Ok(Node {
            name: row.parsed("node")?,
            online: row.opt_text("status")?.as_deref() == Some("online"),
            cores: row.opt_u64("maxcpu")?.and_then(|cores| u32::try_from(cores).ok()),
            cpu: row.opt_f64("cpu")?,
            memory_total: row.opt_u64("maxmem")?,
            memory_used: row.opt_u64("mem")?,
            disk_total: row.opt_u64("maxdisk")?,
            disk_used: row.opt_u64("disk")?,
            uptime: row.opt_i64("uptime")?,
        })
    };
    rows(call::NODES, data)?.into_iter().map(node).collect()
}

pub(crate) fn guests(data: &Value) -> Result<Vec<Guest>> {
    let guest = |row: Row<'_>| {
        Ok(Guest {
            vmid: vmid(row, call::RESOURCES)?,
            node: row.parsed("node")?,
            is_container: row.text("type")? == "lxc",
            name: row.opt_text("name")?,
            running: match row.opt_text("status")?.as_deref() {
                Some("running") => Some(true),
                Some("stopped") => Some(false),
                _ => None,
            },
            template: row.flag("template")?,
            cpu: row.opt_f64("cpu")?,
            memory_used: row.opt_u64("mem")?,
            memory_total: row.opt_u64("maxmem")?,
            disk_used: row.opt_u64("disk")?,
            disk_total: row.opt_u64("maxdisk")?,
            uptime: row.opt_i64("uptime")?,
            cpus: row.opt_f64("maxcpu")?,
            pool: row.opt_text("pool")?.filter(|pool| !pool.is_empty()),
        })
    };
    rows(call::RESOURCES, data)?.into_iter().map(guest).collect()
}

fn vmid(row: Row<'_>, call: &'static str) -> Result<Vmid> {
    Vmid::try_from(row.i64("vmid")?).map_err(|_| malformed(call, "`vmid` is out of range"))
}

pub(crate) fn storages(data: &Value) -> Result<Vec<Storage>> {
    let storage = |row: Row<'_>| {
        let content = row.text("content")?;
        Ok(Storage {
            name: row.text("storage")?,
            kind: row.text("type")?,
            content: content
                .split(',')
                .map(|kind| kind.trim().to_owned())
                .filter(|kind| !kind.is_empty())
                .collect(),
            // `enabled` is absent when the list was asked for enabled ones only.
            active: row.flag("active")? && row.opt_flag("enabled")?.unwrap_or(true),
            shared: row.opt_flag("shared")?.unwrap_or(false),
            available: row.opt_u64("avail")?,
            total: row.opt_u64("total")?,
            used: row.opt_u64("used")?,
        })
    };
    rows(call::STORAGES, data)?.into_iter().map(storage).collect()
}

/// `keep-last=3,keep-daily=7`; one that keeps all is none.
pub(crate) fn retention(data: &Value) -> Result<Option<String>> {
    let text = Row::of(call::BACKUP_DEFAULTS, data)?.opt_text("prune-backups")?;
    Ok(text.filter(|rules| !rules.is_empty() && !rules.split(',').any(|rule| rule == "keep-all=1")))
}

pub(crate) fn config(data: &Value) -> Result<GuestConfig> {
    const KNOWN: [&str; 6] =
        ["digest", "description", "hostname", "lock", "protection", "unprivileged"];
    let row = Row::of(call::CONFIG, data)?;
    let rest = row
        .keys()
        .filter(|(key, value)| !KNOWN.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect();
    let description = row.opt_text("description")?;
    Ok(GuestConfig {
        digest: row.text("digest")?,
        description: description
            .map(|text| text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)),
        hostname: row.opt_text("hostname")?,
        lock: row.opt_text("lock")?,
        protection: row.flag("protection")?,
        unprivileged: row.flag("unprivileged")?,
        rest,
    })
}

/// A configuration's value as it stands in its file; lists (raw LXC lines) as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        other => other.to_string(),
    }
}

pub(crate) fn status(data: &Value) -> Result<GuestStatus> {
    let row = Row::of(call::STATUS, data)?;
    let running = match row.text("status")?.as_str() {
        "running" => true,
        "stopped" => false,
        _ => return Err(malformed(call::STATUS, "`status` is neither running nor stopped")),
    };
    Ok(GuestStatus { running, lock: row.opt_text("lock")?, uptime: row.opt_i64("uptime")? })
}

/// IPv4 before IPv6. Null is what a stopped (or no) container answers.
///
/// The loopback interface is told by its name: a guest's address may be anything. Link-local IPv6
/// addresses are left out, since they reach nobody without an interface's name.
pub(crate) fn addresses(data: &Value) -> Result<Vec<IpAddr>> {
    if data.is_null() {
        return Ok(Vec::new());
    }
    let mut found: Vec<IpAddr> = Vec::new();
    for row in rows(call::INTERFACES, data)? {
        if row.text("name")? == "lo" {
            continue;
        }
        let mut texts = Vec::new();
        if let Some(list) = row.value("ip-addresses") {
            for entry in rows(call::INTERFACES, list)? {
                texts.extend(entry.opt_text("ip-address")?);
            }
        }
        // Releases before 8.2 have only these two.
        texts.extend(row.opt_text("inet")?);
        texts.extend(row.opt_text("inet6")?);
        for text in texts {
            let address: IpAddr = text
                .split('/')
                .next()
                .unwrap_or_default()
                .parse()
                .map_err(|_| malformed(call::INTERFACES, "an address is not one"))?;
            let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !local && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

/// A task's id in the reply of a write; anything else leaves open whether the write ran.
pub(crate) fn upid(call: &'static str, data: &Value) -> Result<Upid> {
    let upid = data.as_str().map(|text| Upid(text.to_owned()));
    match upid {
        Some(upid) if upid::parse(&upid).is_some() => Ok(upid),
        _ => {
            Err(HypervisorError::Unknown { call, reason: "unexpected reply: not a task id".into() })
        }
    }
}

fn ended(exit: Option<&str>) -> TaskState {
    match exit {
        Some("OK") => TaskState::Succeeded { warnings: false },
        Some(text) if text.starts_with("WARNINGS:") => TaskState::Succeeded { warnings: true },
        // The worker died without a last line; or there is no line at all.
        None | Some("" | "unexpected status") => TaskState::Unknown,
        // What a failed task says becomes part of events.
        Some(text) => TaskState::Failed(without_secrets(text.trim())),
    }
}

pub(crate) fn task(data: &Value) -> Result<TaskState> {
    let row = Row::of(call::TASK, data)?;
    match row.text("status")?.as_str() {
        "running" => Ok(TaskState::Running),
        "stopped" => Ok(ended(row.opt_text("exitstatus")?.as_deref())),
        _ => Err(malformed(call::TASK, "`status` is neither running nor stopped")),
    }
}

/// A node's task list, where `status` holds the exit status; absent or `RUNNING` while it runs.
pub(crate) fn tasks(data: &Value) -> Result<Vec<TaskSummary>> {
    let task = |row: Row<'_>| {
        let upid = Upid(row.text("upid")?);
        let parts =
            upid::parse(&upid).ok_or_else(|| malformed(call::TASKS, "`upid` is not a task id"))?;
        let (node, kind, user, started) =
            (parts.node, parts.kind.to_owned(), parts.user.to_owned(), parts.started);
        let state = match row.opt_text("status")?.as_deref() {
            Some("RUNNING") => TaskState::Running,
            None if row.value("endtime").is_none() => TaskState::Running,
            exit => ended(exit),
        };
        let (own, by_lock) = (false, false);
        let ended = row.opt_i64("endtime")?;
        Ok(TaskSummary { upid, node, kind, user, own, by_lock, started, ended, state })
    };
    rows(call::TASKS, data)?.into_iter().map(task).collect()
}

pub(crate) fn log_lines(data: &Value) -> Result<Vec<String>> {
    rows(call::TASK_LOG, data)?.into_iter().map(|row| row.text("t")).collect()
}

pub(crate) fn volumes(data: &Value) -> Result<Vec<Volume>> {
    let volume = |row: Row<'_>| {
        Ok(Volume {
            id: row.text("volid")?,
            size: row.opt_u64("size")?,
            created: row.opt_i64("ctime")?,
            vmid: row.opt_i64("vmid")?.and_then(|number| Vmid::try_from(number).ok()),
            notes: row.opt_text("notes")?,
            protected: row.flag("protected")?,
        })
    };
    rows(call::VOLUMES, data)?.into_iter().map(volume).collect()
}

pub(crate) fn appliances(data: &Value) -> Result<Vec<Appliance>> {
    let appliance = |row: Row<'_>| {
        Ok(Appliance {
            template: row.text("template")?,
            os: row.opt_text("os")?.unwrap_or_default(),
            version: row.opt_text("version")?.unwrap_or_default(),
            sha512: row.opt_text("sha512sum")?.filter(|sum| !sum.is_empty()),
        })
    };
    rows(call::APPLIANCES, data)?.into_iter().map(appliance).collect()
}
