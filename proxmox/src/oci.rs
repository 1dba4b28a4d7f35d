//! Containers made from OCI images; all that ADR 0006 assumes of Proxmox VE 9.1 stands here.

use std::collections::BTreeMap;

use proximity_commands::ports::{GuestConfig, HypervisorError, Process};
use proximity_domain::{NodeName, Vmid};

use crate::lines::is_one_line;
use crate::request::{self, Request, call};
use crate::row::malformed;

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
/// A creation ignores both for images and takes the image's (seen by others on 9.1), and a restore by an
/// API token leaves the environment out. A change of the configuration replaces the whole environment,
/// so what is there is sent along.
pub(crate) fn process(
    node: &NodeName,
    vmid: Vmid,
    process: &Process,
    config: &GuestConfig,
) -> Result<Option<Request>, HypervisorError> {
    check(&process.environment)?;
    let mut request = request::set_config(node, vmid, &config.digest);
    let before = request.params.len();
    let present = present(config)?;
    let differs = |(name, value): (&String, &String)| present.get(name) != Some(value);
    if process.environment.iter().any(differs) {
        let mut merged = present.clone();
        merged.extend(process.environment.clone());
        let pairs: Vec<String> =
            merged.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let env = pairs.join("\0");
        request.secrets.push(env.clone());
        request.secrets.extend(process.environment.values().cloned());
        request = request.with("env", env);
    }
    match &process.entrypoint {
        Some(entrypoint) if config.rest.get("entrypoint") != Some(entrypoint) => {
            request = request.with("entrypoint", entrypoint);
        }
        _ => {}
    }
    Ok((request.params.len() > before).then_some(request))
}

/// The environment in a configuration: `env`, NUL separated, or the raw lines that it is stored as.
/// Lines of another shape are an error: what is taken for empty here is overwritten.
fn present(config: &GuestConfig) -> Result<BTreeMap<String, String>, HypervisorError> {
    let pair =
        |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    if let Some(env) = config.rest.get("env") {
        return Ok(env.split('\0').filter_map(pair).collect());
    }
    let Some(raw) = config.rest.get("lxc") else { return Ok(BTreeMap::new()) };
    let lines: Vec<(String, String)> = serde_json::from_str(raw)
        .map_err(|_| malformed(call::CONFIG, "`lxc` is not a list of pairs of texts"))?;
    Ok(lines
        .iter()
        .filter(|(key, _)| key == "lxc.environment.runtime")
        .filter_map(|(_, text)| pair(text))
        .collect())
}

/// Refuses here what Proxmox refuses without naming the variable, or not at all: a name that is not
/// made of letters, digits and `_`, a value that is not one line (see [`crate::lines`]).
fn check(variables: &BTreeMap<String, String>) -> Result<(), HypervisorError> {
    let refuse = |name: &str, why: &str| HypervisorError::Permanent {
        call: call::SET_CONFIG,
        reason: format!("environment variable `{}`: {why}", name.escape_debug()).into(),
    };
    for (name, value) in variables {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return Err(refuse(name, "a name consists of letters, digits and underscores"));
        }
        if !is_one_line(value) {
            return Err(refuse(name, "the value holds a line break or another control character"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn wanted(pairs: &[(&str, &str)], entrypoint: Option<&str>) -> Process {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Process {
            entrypoint: entrypoint.map(str::to_owned),
            environment: pairs.iter().map(pair).collect(),
        }
    }

    fn set(
        process: &Process,
        config: &GuestConfig,
    ) -> Result<Option<Vec<(&'static str, String)>>, HypervisorError> {
        let (node, vmid) = ("pve1".parse().unwrap(), 100.try_into().unwrap());
        Ok(super::process(&node, vmid, process, config)?.map(|request| request.params))
    }

    fn params(process: &Process, config: &GuestConfig) -> Option<Vec<(&'static str, String)>> {
        set(process, config).unwrap()
    }

    #[test]
    fn our_variables_stand_over_the_images_and_the_others_stay() {
        let ours = wanted(&[("A", "ours"), ("B_2", "x=y z")], Some("/run"));
        let expected = vec![
            ("digest", "d1".to_owned()),
            ("env", "A=ours\0B_2=x=y z\0PATH=/bin".to_owned()),
            ("entrypoint", "/run".to_owned()),
        ];
        let image = config(&[("env", "PATH=/bin\0A=image"), ("entrypoint", "/image")]);
        assert_eq!(params(&ours, &image), Some(expected.clone()));
        let raw = r#"[["lxc.init.cwd","/"],["lxc.environment.runtime","PATH=/bin"]]"#;
        assert_eq!(params(&ours, &config(&[("lxc", raw)])), Some(expected));
    }

    #[test]
    fn what_is_already_so_sends_nothing() {
        let there = config(&[("env", "PATH=/bin\0A=1"), ("entrypoint", "/run")]);
        assert_eq!(params(&wanted(&[("A", "1")], Some("/run")), &there), None);
        assert_eq!(params(&wanted(&[], None), &there), None);
        let entrypoint_only = params(&wanted(&[("A", "1")], Some("/other")), &there).unwrap();
        assert_eq!(entrypoint_only.len(), 2, "the environment is left alone: {entrypoint_only:?}");
    }

    #[test]
    fn raw_lines_of_another_shape_are_no_empty_environment() {
        let ours = wanted(&[("A", "1")], None);
        for lxc in [r#"[["lxc.environment.runtime",5]]"#, r#"[["a","b","c"]]"#, r#"{"a":"b"}"#, "x"]
        {
            let error = set(&ours, &config(&[("lxc", lxc)])).unwrap_err();
            assert!(matches!(error, HypervisorError::Malformed { .. }), "{lxc}: {error:?}");
            assert!(error.to_string().starts_with(call::CONFIG), "{error}");
        }
        // None of them is of the environment.
        let other = config(&[("lxc", r#"[["lxc.apparmor.profile","unconfined"]]"#)]);
        assert_eq!(params(&ours, &other).unwrap().len(), 2);
    }

    #[test]
    fn what_would_smuggle_another_variable_in_is_refused_without_its_value() {
        let line = "1\nlxc.mount.entry: B=2";
        let mut bad =
            vec![("A", "1\0B=2"), ("A=B", "1"), ("", "1"), ("A", "\u{1b}[0m"), ("Ä", "1")];
        bad.extend([("A", line), ("A", "1\rB=2"), ("A", "1\u{b}"), ("A\nB", "1")]);
        for bad in bad {
            let error = set(&wanted(&[bad], None), &config(&[])).unwrap_err();
            assert!(matches!(error, HypervisorError::Permanent { .. }));
            assert!(!error.to_string().contains("B=2"));
        }
    }
}
