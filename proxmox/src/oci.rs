//! Containers made from OCI images; all that ADR 0006 assumes of Proxmox VE 9.1 stands here.

use std::collections::BTreeMap;

use proximity_commands::ports::{GuestConfig, HypervisorError, NewGuest};
use proximity_domain::NodeName;

use crate::request::{self, Request, call};

/// Pulls `reference` (registry/name:tag) into a storage, where it becomes `<file_name>.tar`.
pub(crate) fn pull(node: &NodeName, storage: &str, reference: &str, file_name: &str) -> Request {
    request::pull(node, storage).with("reference", reference).with("filename", file_name)
}

/// Whether a template volume is an image's archive: those alone are bare `.tar` files.
pub(crate) fn is_image_archive(volume: &str) -> bool {
    volume.ends_with(".tar")
}

/// The member of `net0` for images: they bring no program that would configure the interface, so
/// the host does it, by DHCP too.
pub(crate) const HOST_MANAGED: &str = ",host-managed=1";

/// The change that gives a new container its entrypoint and environment; `None` when it has them.
///
/// A creation ignores both for images and takes the image's (seen by others on 9.1). A change of the
/// configuration replaces the whole environment, so what the image brought is sent along.
pub(crate) fn process(
    node: &NodeName,
    guest: &NewGuest,
    config: &GuestConfig,
) -> Result<Option<Request>, HypervisorError> {
    check(&guest.environment)?;
    let mut request = request::set_config(node, guest.vmid, &config.digest);
    let before = request.params.len();
    let present = present(config);
    let differs = |(name, value): (&String, &String)| present.get(name) != Some(value);
    if guest.environment.iter().any(differs) {
        let mut merged = present.clone();
        merged.extend(guest.environment.clone());
        let pairs: Vec<String> =
            merged.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let env = pairs.join("\0");
        request.secrets.push(env.clone());
        request.secrets.extend(guest.environment.values().cloned());
        request = request.with("env", env);
    }
    match &guest.entrypoint {
        Some(entrypoint) if config.rest.get("entrypoint") != Some(entrypoint) => {
            request = request.with("entrypoint", entrypoint);
        }
        _ => {}
    }
    Ok((request.params.len() > before).then_some(request))
}

/// The environment in a configuration: `env`, NUL separated, or the raw lines that it is stored as.
fn present(config: &GuestConfig) -> BTreeMap<String, String> {
    let pair =
        |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    if let Some(env) = config.rest.get("env") {
        return env.split('\0').filter_map(pair).collect();
    }
    let raw = config.rest.get("lxc").and_then(|text| serde_json::from_str(text).ok());
    let lines: Vec<(String, String)> = raw.unwrap_or_default();
    lines
        .iter()
        .filter(|(key, _)| key == "lxc.environment.runtime")
        .filter_map(|(_, text)| pair(text))
        .collect()
}

/// Refuses here what Proxmox would refuse without naming the variable: a name that is not made of
/// letters, digits and `_`, a value with a control character that its schema forbids.
fn check(variables: &BTreeMap<String, String>) -> Result<(), HypervisorError> {
    let refuse = |name: &str, why: &str| HypervisorError::Permanent {
        call: call::SET_CONFIG,
        reason: format!("environment variable `{}`: {why}", name.escape_debug()),
    };
    for (name, value) in variables {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return Err(refuse(name, "a name consists of letters, digits and underscores"));
        }
        if value.bytes().any(|byte| matches!(byte, 0..=8 | 0x10..=0x1f | 0x7f)) {
            return Err(refuse(name, "the value holds a control character"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::samples;

    fn config(rest: &[(&str, &str)]) -> GuestConfig {
        GuestConfig {
            digest: "d1".to_owned(),
            description: None,
            hostname: None,
            lock: None,
            protection: true,
            unprivileged: true,
            rest: rest.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }
    }

    fn guest(pairs: &[(&str, &str)], entrypoint: Option<&str>) -> NewGuest {
        let mut guest = samples::guest(100.try_into().unwrap());
        guest.environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        guest.entrypoint = entrypoint.map(str::to_owned);
        guest
    }

    fn params(guest: &NewGuest, config: &GuestConfig) -> Option<Vec<(&'static str, String)>> {
        process(&"pve1".parse().unwrap(), guest, config).unwrap().map(|request| request.params)
    }

    #[test]
    fn our_variables_stand_over_the_images_and_the_others_stay() {
        let guest = guest(&[("A", "ours"), ("B_2", "x=y z")], Some("/run"));
        let expected = vec![
            ("digest", "d1".to_owned()),
            ("env", "A=ours\0B_2=x=y z\0PATH=/bin".to_owned()),
            ("entrypoint", "/run".to_owned()),
        ];
        let image = config(&[("env", "PATH=/bin\0A=image"), ("entrypoint", "/image")]);
        assert_eq!(params(&guest, &image), Some(expected.clone()));
        let raw = r#"[["lxc.init.cwd","/"],["lxc.environment.runtime","PATH=/bin"]]"#;
        assert_eq!(params(&guest, &config(&[("lxc", raw)])), Some(expected));
    }

    #[test]
    fn what_is_already_so_sends_nothing() {
        let there = config(&[("env", "PATH=/bin\0A=1"), ("entrypoint", "/run")]);
        assert_eq!(params(&guest(&[("A", "1")], Some("/run")), &there), None);
        assert_eq!(params(&guest(&[], None), &there), None);
        let entrypoint_only = params(&guest(&[("A", "1")], Some("/other")), &there).unwrap();
        assert_eq!(entrypoint_only.len(), 2, "the environment is left alone: {entrypoint_only:?}");
    }

    #[test]
    fn what_would_smuggle_another_variable_in_is_refused_without_its_value() {
        for bad in [("A", "1\0B=2"), ("A=B", "1"), ("", "1"), ("A", "\u{1b}[0m"), ("Ä", "1")] {
            let node = "pve1".parse().unwrap();
            let error = process(&node, &guest(&[bad], None), &config(&[])).err().unwrap();
            assert!(matches!(error, HypervisorError::Permanent { .. }));
            assert!(!error.to_string().contains("B=2"));
        }
    }
}
