//! A new container as the parameters of one POST.

use std::net::IpAddr;

use proximity_commands::ports::{GuestAddress, HypervisorError, NewGuest, NewRestored};
use proximity_domain::NodeName;

use crate::oci;
use crate::request::{self, Request, call};

/// The POST that creates a container, stopped.
///
/// - `unprivileged` is always sent: its default changed from 0 to 1 with Proxmox VE 9.
/// - `start` never is: it would start a second task whose id is not returned.
/// - `onboot` is 1: an application is back after its node's power cut, without anybody's help.
/// - `storage` is not needed beside a `rootfs` that names one.
/// - `entrypoint` and `env` are never sent: see [`oci::process`].
pub(crate) fn request(node: &NodeName, guest: &NewGuest) -> Result<Request, HypervisorError> {
    let refuse =
        |reason: &str| HypervisorError::Permanent { call: call::CREATE, reason: reason.into() };
    // Both go into property strings, where a comma would start another member.
    if guest.disk_storage.is_empty() || guest.disk_storage.contains([',', ':', '=']) {
        return Err(refuse("the disk's storage is not a storage name"));
    }
    if guest.bridge.is_empty() || guest.bridge.contains([',', '=']) {
        return Err(refuse("the bridge is not an interface name"));
    }
    // Proxmox's own limits; said here in words that a person can act on.
    if guest.resources.memory.get() < 16 {
        return Err(refuse("a container has at least 16 MiB of memory"));
    }
    fits(call::CREATE, &guest.description)?;
    let mut request = request::create(node)
        .with("vmid", guest.vmid)
        .with("ostemplate", &guest.archive)
        .with("hostname", &guest.hostname)
        .with("description", &guest.description)
        .with("rootfs", format!("{}:{}", guest.disk_storage, guest.disk))
        .with("cores", guest.resources.cores)
        .with("memory", guest.resources.memory)
        .with("swap", guest.resources.swap)
        .with("net0", network(guest))
        .with_flag("unprivileged", guest.unprivileged)
        .with_flag("protection", guest.protection)
        .with_flag("onboot", true);
    if !guest.dns.is_empty() {
        let servers: Vec<String> = guest.dns.iter().map(IpAddr::to_string).collect();
        request = request.with("nameserver", servers.join(" "));
    }
    if let Some(features) = &guest.features {
        request = request.with("features", features);
    }
    Ok(request)
}

/// The POST that makes a container from an archive, stopped. What it does not say comes from there.
pub(crate) fn restore(node: &NodeName, restored: &NewRestored) -> Result<Request, HypervisorError> {
    fits(call::CREATE, &restored.description)?;
    let mut request = request::create(node)
        .with("vmid", restored.vmid)
        .with("ostemplate", &restored.archive)
        .with_flag("restore", true)
        .with("storage", &restored.storage)
        .with("description", &restored.description);
    if let Some(pool) = &restored.pool {
        request = request.with("pool", pool);
    }
    Ok(if restored.overwrite { request.with_flag("force", true) } else { request })
}

/// Whether Proxmox takes a description of this length, said in words that a person can act on.
pub(crate) fn fits(call: &'static str, description: &str) -> Result<(), HypervisorError> {
    if description.chars().count() <= 8192 {
        return Ok(());
    }
    let reason = "the description is longer than 8192 characters".to_owned();
    Err(HypervisorError::Permanent { call, reason: reason.into() })
}

fn network(guest: &NewGuest) -> String {
    let mut net = format!("name=eth0,bridge={}", guest.bridge);
    match &guest.address {
        GuestAddress::Dhcp => net.push_str(",ip=dhcp"),
        GuestAddress::Static { address, subnet, gateway } => {
            let (ip, gw) = if address.is_ipv4() { ("ip", "gw") } else { ("ip6", "gw6") };
            let prefix = subnet.net().prefix_len();
            net.push_str(&format!(",{ip}={address}/{prefix},{gw}={gateway}"));
        }
    }
    if oci::is_image_archive(&guest.archive) {
        net.push_str(oci::HOST_MANAGED);
    }
    net
}
