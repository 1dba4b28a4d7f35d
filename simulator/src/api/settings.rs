//! How parameters become configuration: normal forms, and the rights that each setting needs.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;

use crate::auth::Auth;
use crate::params::Params;
use crate::params::formats::split_list;
use crate::params::property::{self, FEATURES, NET, ROOTFS};
use crate::reply::Refusal;
use crate::sim::Sim;
use crate::world::World;
use crate::world::container::{Config, is_mount, is_net};

/// Parameters of create and configure that are no settings.
const NO_SETTINGS: &[&str] = &[
    "bwlimit",
    "delete",
    "digest",
    "force",
    "ha-managed",
    "ignore-unpack-errors",
    "node",
    "ostemplate",
    "password",
    "pool",
    "restore",
    "revert",
    "ssh-public-keys",
    "start",
    "storage",
    "unique",
    "vmid",
];

/// The settings of a call in their stored form; volumes are left as the caller wrote them.
pub(crate) fn settings(world: &mut World, params: &Params) -> Config {
    let mut config = Config::new();
    for (name, value) in &params.0 {
        if NO_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        let stored = match name.as_str() {
            "tags" => normal_tags(value),
            "features" => normal(FEATURES, value),
            "hostname" => value.clone(),
            name if is_net(name) => normal_net(world, value),
            _ => value.clone(),
        };
        config.insert(name.clone(), stored);
    }
    config
}

/// Lower-cased, sorted, each once, with semicolons between.
pub(crate) fn normal_tags(value: &str) -> String {
    let tags: BTreeSet<String> = split_list(value).map(str::to_ascii_lowercase).collect();
    tags.into_iter().collect::<Vec<_>>().join(";")
}

fn normal(table: property::Table, value: &str) -> String {
    match property::parse(table, value) {
        Ok(members) if table.rows == FEATURES.rows => {
            let parts: Vec<String> = members.iter().map(|(k, v)| format!("{k}={v}")).collect();
            parts.join(",")
        }
        Ok(members) => property::print(table, &members),
        Err(_) => value.to_owned(),
    }
}

/// Gains an address and a type.
fn normal_net(world: &mut World, value: &str) -> String {
    let Ok(mut members) = property::parse(NET, value) else { return value.to_owned() };
    match members.get_mut("hwaddr") {
        Some(mac) => *mac = mac.to_ascii_uppercase(),
        None => {
            members.insert("hwaddr".to_owned(), world.fresh_mac());
        }
    }
    members.insert("type".to_owned(), "veth".to_owned());
    property::print(NET, &members)
}

/// Gives every interface of a configuration a new address.
pub(crate) fn renew_macs(world: &mut World, config: &mut Config) {
    for (_, value) in config.iter_mut().filter(|(name, _)| is_net(name)) {
        if let Ok(mut members) = property::parse(NET, value) {
            members.insert("hwaddr".to_owned(), world.fresh_mac());
            *value = property::print(NET, &members);
        }
    }
}

/// Refuses settings that the caller may not make; `deleted` are names without a value.
pub(crate) fn check_rights(
    sim: &Sim,
    auth: &Auth,
    vmid: u32,
    params: &Params,
    deleted: &[String],
    unprivileged: bool,
) -> Result<(), Refusal> {
    if auth.is_root() {
        return Ok(());
    }
    let path = format!("/vms/{vmid}");
    let need = |privilege: &'static str| sim.require(auth, &path, &[privilege], false);
    let set = params.0.iter().filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str()));
    let names = set
        .map(|(name, value)| (name.as_str(), Some(value.as_str())))
        .chain(deleted.iter().map(|name| (name.as_str(), None)));
    let mut by_class: BTreeMap<u8, Vec<(&str, Option<&str>)>> = BTreeMap::new();
    for (name, value) in names {
        by_class.entry(class(name)).or_default().push((name, value));
    }
    for (class, settings) in by_class {
        match class {
            OPTIONS => need("VM.Config.Options")?,
            MEMORY => need("VM.Config.Memory")?,
            CPU => need("VM.Config.CPU")?,
            NETWORK => {
                need("VM.Config.Network")?;
            }
            DISK => {
                need("VM.Config.Disk")?;
                for (_, value) in settings.iter().filter(|(name, _)| *name != "rootfs") {
                    refuse_bind_mounts(*value)?;
                }
            }
            FEATURE => check_features(sim, auth, &path, settings[0].1, unprivileged)?,
            // Hook scripts and device passthrough.
            _ => {
                return Err(Refusal::forbidden(format!(
                    "{} is only allowed for root@pam",
                    what(settings[0].0)
                )));
            }
        }
    }
    check_bridges(sim, auth, params)
}

const OPTIONS: u8 = 0;
const MEMORY: u8 = 1;
const CPU: u8 = 2;
const NETWORK: u8 = 3;
const DISK: u8 = 4;
const FEATURE: u8 = 5;
const ROOT_ONLY: u8 = 6;

fn class(name: &str) -> u8 {
    match name {
        "memory" | "swap" => MEMORY,
        "cores" | "cpulimit" | "cpuunits" => CPU,
        "nameserver" | "searchdomain" | "hostname" => NETWORK,
        "features" => FEATURE,
        "hookscript" => ROOT_ONLY,
        name if is_net(name) => NETWORK,
        name if is_mount(name) => DISK,
        name if name.strip_prefix("dev").is_some_and(|i| i.parse::<u8>().is_ok()) => ROOT_ONLY,
        _ => OPTIONS,
    }
}

fn what(name: &str) -> &'static str {
    if name == "hookscript" { "changing the hookscript" } else { "configuring device passthrough" }
}

fn refuse_bind_mounts(value: Option<&str>) -> Result<(), Refusal> {
    let volume = value.and_then(|value| property::parse(ROOTFS, value).ok()?.remove("volume"));
    let kind = match volume.as_deref() {
        Some(volume) if volume.starts_with("/dev/") => "device",
        Some(volume) if volume.starts_with('/') => "bind",
        _ => return Ok(()),
    };
    Err(Refusal::forbidden(format!("mount point type {kind} is only allowed for root@pam")))
}

fn check_features(
    sim: &Sim,
    auth: &Auth,
    path: &str,
    value: Option<&str>,
    unprivileged: bool,
) -> Result<(), Refusal> {
    if !unprivileged {
        return Err(Refusal::forbidden(
            "changing feature flags for privileged container is only allowed for root@pam",
        ));
    }
    let members = value.and_then(|value| property::parse(FEATURES, value).ok()).unwrap_or_default();
    if members.keys().any(|name| name != "nesting") {
        return Err(Refusal::forbidden(
            "changing feature flags (except nesting) is only allowed for root@pam",
        ));
    }
    sim.require(auth, path, &["VM.Allocate"], false)
}

/// Using a bridge needs a right on it even where no zone is configured.
fn check_bridges(sim: &Sim, auth: &Auth, params: &Params) -> Result<(), Refusal> {
    for (_, value) in params.0.iter().filter(|(name, _)| is_net(name)) {
        let Ok(members) = property::parse(NET, value) else { continue };
        if let Some(bridge) = members.get("bridge") {
            let path = format!("/sdn/zones/localnetwork/{bridge}");
            sim.require(auth, &path, &["SDN.Use"], false)?;
        }
    }
    Ok(())
}

/// The distribution that a template's name speaks of.
pub(crate) fn ostype(image: &str) -> &'static str {
    let names = [
        "alpine",
        "debian",
        "ubuntu",
        "devuan",
        "centos",
        "fedora",
        "opensuse",
        "archlinux",
        "gentoo",
        "nixos",
    ];
    names.into_iter().find(|name| image.contains(name)).unwrap_or("unmanaged")
}

/// A version 4 style identifier from the seed, as file systems show one.
pub(crate) fn filesystem_uuid(world: &mut World) -> String {
    uuid::Builder::from_random_bytes(world.rng.random()).into_uuid().to_string()
}
