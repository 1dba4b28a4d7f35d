//! A container's configuration as it is kept of an adoption: resources, plain values, and secrets.

use std::collections::BTreeMap;

use proximity_domain::{Cores, Gibibytes, Mebibytes, Resources};

use crate::error::Error;
use crate::ports::{Guest, GuestConfig};

/// Of 8,192 characters; the rest is for the marker.
pub(super) const LONGEST_NOTES: usize = 7_500;

/// Keys whose values are shown as they are; every other value may be a secret.
const PLAIN: [&str; 26] = [
    "arch",
    "cmode",
    "console",
    "cores",
    "cpulimit",
    "cpuunits",
    "features",
    "hostname",
    "memory",
    "nameserver",
    "onboot",
    "ostype",
    "parent",
    "pool",
    "protection",
    "rootfs",
    "searchdomain",
    "startup",
    "swap",
    "tags",
    "template",
    "timezone",
    "tty",
    "unprivileged",
    "lock",
    "digest",
];
/// The same for keys with a number behind them.
const PLAIN_NUMBERED: [&str; 3] = ["net", "mp", "unused"];

/// Bytes in a GiB and in a MiB.
const GIBIBYTE: u64 = 1 << 30;
const MEBIBYTE: u64 = 1 << 20;

/// What was read.
pub(super) struct Captured {
    pub(super) resources: Resources,
    pub(super) plain: BTreeMap<String, String>,
    pub(super) secret: BTreeMap<String, String>,
}

/// Takes everything that the configuration says; `listed` says what it leaves to the node.
pub(super) fn read(config: &GuestConfig, listed: &Option<Guest>) -> Result<Captured, Error> {
    let resources = resources(config, listed.as_ref())?;
    let (mut plain, mut secret) = (BTreeMap::new(), BTreeMap::new());
    let own = [
        ("hostname", config.hostname.clone()),
        ("description", config.description.clone()),
        ("protection", config.protection.then(|| "1".to_owned())),
        ("unprivileged", config.unprivileged.then(|| "1".to_owned())),
    ];
    let own = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    for (key, value) in config.rest.clone().into_iter().chain(own) {
        let shown = if is_plain(&key) { &mut plain } else { &mut secret };
        shown.insert(key, value);
    }
    Ok(Captured { resources, plain, secret })
}

fn is_plain(key: &str) -> bool {
    let word = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
    PLAIN.contains(&key) || (word.len() < key.len() && PLAIN_NUMBERED.contains(&word))
}

fn unreadable(what: &str) -> Error {
    Error::conflict(
        "container.unreadable",
        format!("{what} of this container cannot be told from its configuration"),
    )
}

fn resources(config: &GuestConfig, listed: Option<&Guest>) -> Result<Resources, Error> {
    let number = |key: &str| -> Result<Option<i64>, Error> {
        let value = config.rest.get(key).filter(|value| !value.is_empty());
        value.map(|value| value.parse().map_err(|_| unreadable(key))).transpose()
    };
    // Without a limit of its own it may use all cores of its node.
    #[allow(clippy::cast_possible_truncation, reason = "`as` saturates; the type checks the range")]
    let all = || listed.and_then(|guest| guest.cpus).map(|cpus| cpus.ceil() as i64);
    let cores = number("cores")?.or_else(all).ok_or_else(|| unreadable("the number of cores"))?;
    let disk = config
        .rest
        .get("rootfs")
        .and_then(|rootfs| rootfs.split(',').find_map(|member| member.strip_prefix("size=")))
        .and_then(bytes)
        .or_else(|| listed.and_then(|guest| guest.disk_total))
        .ok_or_else(|| unreadable("the size of the root disk"))?;
    let disk = i64::try_from(disk.div_ceil(GIBIBYTE)).unwrap_or(i64::MAX);
    // Proxmox's defaults where nothing is set.
    let memory = number("memory")?.unwrap_or(512);
    let swap = number("swap")?.unwrap_or(512);
    Ok(Resources {
        cores: Cores::try_from(cores).map_err(|_| unreadable("the number of cores"))?,
        memory: Mebibytes::try_from(memory).map_err(|_| unreadable("the memory"))?,
        disk: Gibibytes::try_from(disk).map_err(|_| unreadable("the size of the root disk"))?,
        swap: Mebibytes::try_from(swap).map_err(|_| unreadable("the swap"))?,
    })
}

/// `8G`, `512M`, `1.5T`, or plain bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], MEBIBYTE),
        b'G' => (&text[..text.len() - 1], GIBIBYTE),
        b'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1),
    };
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "`as` saturates, and sizes lie far below 2^53"
    )]
    let bytes = (number * unit as f64) as u64;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &[(&str, &str)]) -> GuestConfig {
        GuestConfig {
            digest: "d".to_owned(),
            description: Some("the password is on the wall".to_owned()),
            hostname: Some("web".to_owned()),
            lock: None,
            protection: false,
            unprivileged: true,
            rest: rest.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_is_a_secret() {
        let config = config(&[
            ("cores", "2"),
            ("rootfs", "local:100/vm-100-disk-0.raw,size=8G"),
            ("net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
            ("env", "DB_PASSWORD=x"),
            ("lxc", "[[\"lxc.environment\",\"TOKEN=y\"]]"),
            ("entrypoint", "/run --key z"),
        ]);
        let captured = read(&config, &None).unwrap();
        let plain: Vec<&str> = captured.plain.keys().map(String::as_str).collect();
        assert_eq!(plain, ["cores", "hostname", "net0", "rootfs", "unprivileged"]);
        let secret: Vec<&str> = captured.secret.keys().map(String::as_str).collect();
        assert_eq!(secret, ["description", "entrypoint", "env", "lxc"]);
    }

    #[test]
    fn audit_12_a_configuration_that_does_not_say_its_resources_is_refused() {
        for broken in [
            &[("cores", "2")][..],
            &[("rootfs", "local:1,size=8G")],
            &[("cores", "two"), ("rootfs", "local:1,size=8G")],
            &[("cores", "2"), ("rootfs", "local:1,size=huge")],
            &[("cores", "2"), ("rootfs", "local:1,size=8G"), ("memory", "-1")],
        ] {
            let refused = read(&config(broken), &None).err().map(|error| error.code());
            assert_eq!(refused, Some("container.unreadable"), "{broken:?}");
        }
    }

    #[test]
    fn sizes_are_rounded_up_to_whole_gibibytes() {
        for (size, whole) in [("8G", 8), ("512M", 1), ("1.5T", 1_536), ("8193M", 9)] {
            let rootfs = format!("local:1,size={size}");
            let captured = read(&config(&[("cores", "2"), ("rootfs", &rootfs)]), &None).unwrap();
            assert_eq!(captured.resources.disk.get(), whole, "{size}");
        }
    }
}
