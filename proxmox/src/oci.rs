//! Containers made from OCI images; all that ADR 0006 assumes of Proxmox VE 9.1 stands here.

use std::collections::BTreeMap;

use proximity_commands::ports::HypervisorError;
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

/// The environment as one value: `NAME=value` separated by NUL bytes.
///
/// Refused here rather than by Proxmox, whose answer would not say which name it is: a name that is
/// not made of letters, digits and `_`, a value with a control character that the schema forbids.
pub(crate) fn environment(
    variables: &BTreeMap<String, String>,
) -> Result<Option<String>, HypervisorError> {
    let refuse = |name: &str, why: &str| HypervisorError::Permanent {
        call: call::CREATE,
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
    if variables.is_empty() {
        return Ok(None);
    }
    let pairs: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(Some(pairs.join("\0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_are_separated_by_nul() {
        let env = environment(&variables(&[("A", "1"), ("B_2", "x=y z")])).unwrap();
        assert_eq!(env.as_deref(), Some("A=1\0B_2=x=y z"));
        assert_eq!(environment(&BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn what_would_smuggle_another_variable_in_is_refused_without_its_value() {
        for bad in [("A", "1\0B=2"), ("A=B", "1"), ("", "1"), ("A", "\u{1b}[0m"), ("Ä", "1")] {
            let error = environment(&variables(&[bad])).unwrap_err();
            assert!(matches!(error, HypervisorError::Permanent { .. }));
            assert!(!error.to_string().contains("B=2"));
        }
    }
}
