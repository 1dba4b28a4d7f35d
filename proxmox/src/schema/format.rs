//! Proxmox's named formats, as far as our requests use them; an unknown one is a complaint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::Regex;

fn matches(pattern: &str, value: &str) -> bool {
    Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value)
}

fn is_net(value: &str, v4: bool) -> bool {
    let Some((address, prefix)) = value.split_once('/') else { return false };
    let Ok(prefix) = prefix.parse::<u8>() else { return false };
    if v4 {
        address.parse::<Ipv4Addr>().is_ok() && prefix <= 32
    } else {
        address.parse::<Ipv6Addr>().is_ok() && prefix <= 128
    }
}

/// What is wrong with a value in a named format.
pub(super) fn wrong(name: &str, value: &str) -> Option<String> {
    let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
    let content = "images|rootdir|vztmpl|iso|backup|snippets|import|none";
    let config_id = "(?i:[a-z][a-z0-9_-]+)";
    let number = "[1-9][0-9]{2,8}";
    let right = match name {
        "pve-node" => matches(label, value),
        "pve-vmid" => matches(number, value),
        "pve-vmid-list" => value.split([' ', ',', ';']).all(|part| matches(number, part)),
        "pve-poolid" => matches("[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}", value),
        "pve-storage-id" => matches("(?i:[a-z][a-z0-9\\-_.]*[a-z0-9])", value),
        "pve-storage-content" => matches(content, value),
        "dns-name" => matches(&format!("(?:{label})(?:\\.(?:{label}))*"), value),
        "ipv4" => value.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => value.parse::<Ipv6Addr>().is_ok(),
        "pve-ipv4-config" => matches!(value, "dhcp" | "manual") || is_net(value, true),
        "pve-ipv6-config" => matches!(value, "dhcp" | "manual" | "auto") || is_net(value, false),
        "lxc-ip-with-ll-iface-list" => {
            value.split([' ', ',', ';']).all(|part| part.parse::<IpAddr>().is_ok())
        }
        "pve-configid" => matches(config_id, value),
        "pve-configid-list" => value.split([' ', ',', ';']).all(|part| matches(config_id, part)),
        "pve-lxc-mp-string" => !value.is_empty() && !value.contains(['\n', '\0', '"']),
        _ => return Some(format!("no check for format {name}")),
    };
    (!right).then(|| format!("not in format {name}"))
}
