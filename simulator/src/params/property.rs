//! Property strings such as `name=eth0,bridge=vmbr0`: parsing, checking and printing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a member of a property string may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Member {
    Boolean,
    Text,
    Integer(u32, u32),
    Number,
    Ipv4,
    Ipv6,
    Ipv4Config,
    Ipv6Config,
    Mac,
    Choice(&'static [&'static str]),
    Word,
}

/// One line of a property string's table: name, type, required.
pub(crate) type Row = (&'static str, Member, bool);

/// The table of a property string, and the member that stands without a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) rows: &'static [Row],
    pub(crate) default_key: Option<&'static str>,
}

pub(crate) const NET: Table = Table {
    default_key: None,
    rows: &[
        ("bridge", Member::Word, false),
        ("firewall", Member::Boolean, false),
        ("gw", Member::Ipv4, false),
        ("gw6", Member::Ipv6, false),
        ("host-managed", Member::Boolean, false),
        ("hwaddr", Member::Mac, false),
        ("ip", Member::Ipv4Config, false),
        ("ip6", Member::Ipv6Config, false),
        ("link_down", Member::Boolean, false),
        ("mtu", Member::Integer(64, 65_535), false),
        ("name", Member::Word, true),
        ("rate", Member::Number, false),
        ("tag", Member::Integer(1, 4_094), false),
        ("trunks", Member::Text, false),
        ("type", Member::Choice(&["veth"]), false),
    ],
};

pub(crate) const FEATURES: Table = Table {
    default_key: None,
    rows: &[
        ("force_rw_sys", Member::Boolean, false),
        ("fuse", Member::Boolean, false),
        ("keyctl", Member::Boolean, false),
        ("mknod", Member::Boolean, false),
        ("mount", Member::Text, false),
        ("nesting", Member::Boolean, false),
    ],
};

pub(crate) const ROOTFS: Table = Table {
    default_key: Some("volume"),
    rows: &[
        ("acl", Member::Boolean, false),
        ("mountoptions", Member::Text, false),
        ("quota", Member::Boolean, false),
        ("replicate", Member::Boolean, false),
        ("ro", Member::Boolean, false),
        ("shared", Member::Boolean, false),
        ("size", Member::Text, false),
        ("volume", Member::Text, true),
    ],
};

pub(crate) const MOUNT_POINT: Table = Table {
    default_key: Some("volume"),
    rows: &[
        ("acl", Member::Boolean, false),
        ("backup", Member::Boolean, false),
        ("keepattrs", Member::Boolean, false),
        ("mountoptions", Member::Text, false),
        ("mp", Member::Text, true),
        ("quota", Member::Boolean, false),
        ("replicate", Member::Boolean, false),
        ("ro", Member::Boolean, false),
        ("shared", Member::Boolean, false),
        ("size", Member::Text, false),
        ("volume", Member::Text, true),
    ],
};

/// The members of a property string by name.
pub(crate) fn parse(table: Table, value: &str) -> Result<BTreeMap<String, String>, String> {
    let mut members = BTreeMap::new();
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let (name, text) = match (part.split_once('='), table.default_key) {
            (Some((name, text)), _) => (name, text),
            (None, Some(name)) => (name, part),
            (None, None) => {
                return Err("missing key in comma-separated list property\n".to_owned());
            }
        };
        if members.insert(name.to_owned(), text.to_owned()).is_some() {
            return Err(format!("duplicate key in comma-separated list property: {name}\n"));
        }
    }
    Ok(members)
}

/// Prints members as Proxmox stores them: the default member first, the rest sorted.
pub(crate) fn print(table: Table, members: &BTreeMap<String, String>) -> String {
    let lead = table.default_key.unwrap_or("name");
    let mut parts = Vec::new();
    if let Some(value) = members.get(lead) {
        parts.push(match table.default_key {
            Some(_) => value.clone(),
            None => format!("{lead}={value}"),
        });
    }
    parts.extend(
        members
            .iter()
            .filter(|(name, _)| *name != lead)
            .map(|(name, text)| format!("{name}={text}")),
    );
    parts.join(",")
}

/// The text of the fault in `value` of parameter `prefix`, if any; each faulty member has its line.
pub(crate) fn check(table: Table, prefix: &str, value: &str) -> Option<String> {
    let members = match parse(table, value) {
        Ok(members) => members,
        Err(text) => return Some(text),
    };
    let mut lines = String::new();
    for (name, text) in &members {
        let fault = match table.rows.iter().find(|(row, ..)| row == name) {
            None => Some(
                "property is not defined in schema and the schema does not allow additional \
                 properties"
                    .to_owned(),
            ),
            Some((_, member, _)) => member.fault(text),
        };
        if let Some(fault) = fault {
            lines.push_str(&format!("{prefix}.{name}: {fault}\n"));
        }
    }
    for (name, _, required) in table.rows {
        if *required && !members.contains_key(*name) {
            lines.push_str(&format!(
                "{prefix}.{name}: property is missing and it is not optional\n"
            ));
        }
    }
    (!lines.is_empty()).then(|| format!("format error\n{lines}"))
}

impl Member {
    fn fault(self, text: &str) -> Option<String> {
        let fits = match self {
            Self::Boolean => {
                return (!["0", "1", "on", "off", "yes", "no", "true", "false"].contains(&text))
                    .then(|| format!("type check ('boolean') failed - got '{text}'"));
            }
            Self::Text => true,
            Self::Integer(min, max) => {
                return match text.parse::<u32>() {
                    Err(_) => Some(format!("type check ('integer') failed - got '{text}'")),
                    Ok(n) if n < min => Some(format!("value must have a minimum value of {min}")),
                    Ok(n) if n > max => Some(format!("value must have a maximum value of {max}")),
                    Ok(_) => None,
                };
            }
            Self::Number => {
                return text
                    .parse::<f64>()
                    .is_err()
                    .then(|| format!("type check ('number') failed - got '{text}'"));
            }
            Self::Choice(values) => {
                return (!values.contains(&text)).then(|| {
                    format!(
                        "value '{text}' does not have a value in the enumeration '{}'",
                        values.join(", ")
                    )
                });
            }
            Self::Word => {
                return (text.is_empty()
                    || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
                .then(|| "value does not match the regex pattern".to_owned());
            }
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Ipv4Config => {
                text == "dhcp" || text == "manual" || cidr::<Ipv4Addr>(text, 32).is_some()
            }
            Self::Ipv6Config => {
                ["dhcp", "manual", "auto"].contains(&text) || cidr::<Ipv6Addr>(text, 128).is_some()
            }
            Self::Mac => is_unicast_mac(text),
        };
        let noun = match self {
            Self::Ipv4 => "value does not look like a valid ipv4 address",
            Self::Ipv6 => "value does not look like a valid ipv6 address",
            Self::Ipv4Config => "value does not look like a valid ipv4 network configuration",
            Self::Ipv6Config => "value does not look like a valid ipv6 network configuration",
            _ => "value does not look like a valid unicast MAC address",
        };
        (!fits).then(|| format!("invalid format - {noun}\n"))
    }
}

/// `address/prefix` with a prefix of at least 8 for IPv4, as Proxmox wants it.
pub(crate) fn cidr<A: std::str::FromStr>(text: &str, most: u8) -> Option<(A, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let bits = prefix.parse::<u8>().ok().filter(|bits| (1..=most).contains(bits))?;
    Some((address.parse().ok()?, bits))
}

fn is_unicast_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts.iter().all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok())
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}
