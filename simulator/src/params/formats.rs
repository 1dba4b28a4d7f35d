//! The text formats that parameters name, and what is said when a value is not of its format.

use super::property;

/// A named format of the API description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Any,
    Vmid,
    VmidList,
    ConfigId,
    ConfigIdList,
    StorageId,
    PoolId,
    DnsName,
    TagList,
    Net,
    Features,
    Rootfs,
    MountPoint,
    OciReference,
    Entrypoint,
    Environment,
    TokenId,
    ContentList,
    Size,
}

/// `[A-Za-z][A-Za-z0-9_-]+`, so never a single letter.
pub(crate) fn is_config_id(value: &str) -> bool {
    let mut bytes = value.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && value.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_vmid(value: &str) -> bool {
    (3..=9).contains(&value.len())
        && !value.starts_with('0')
        && value.bytes().all(|b| b.is_ascii_digit())
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_identifier(value: &str, extra: &[u8]) -> bool {
    let mut bytes = value.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_-+.".contains(&b))
}

/// The separators of Proxmox's lists: blanks, commas, semicolons and NUL.
pub(crate) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(|c: char| c == ',' || c == ';' || c == '\0' || c.is_ascii_whitespace())
        .filter(|part| !part.is_empty())
}

/// `[registry[:port]/]name[/name…]:tag`, as `oci-registry-pull` takes it.
pub(crate) fn is_oci_reference(value: &str) -> bool {
    let Some((path, tag)) = value.rsplit_once(':') else { return false };
    let tag_fits = (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let mut parts: Vec<&str> = path.split('/').collect();
    let first_is_host = parts.len() > 1
        && (parts[0].contains(['.', ':']) || parts[0].bytes().any(|b| b.is_ascii_uppercase()));
    let host_fits = !first_is_host || {
        let host = parts.remove(0);
        let (name, port) = host.split_once(':').unwrap_or((host, "1"));
        name.split('.').all(is_dns_label) && port.bytes().all(|b| b.is_ascii_digit())
    };
    let names_fit = parts.iter().all(|part| {
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !part.is_empty()
            && part.bytes().all(|b| edge(b) || b"._-".contains(&b))
            && part.bytes().next().is_some_and(edge)
            && part.bytes().last().is_some_and(edge)
    });
    tag_fits && host_fits && names_fit
}

/// Text without control characters; a tab is none. Up to Proxmox VE 9.1.7 line feeds and their like
/// passed, too, and each began a line of its own in the configuration.
fn is_printable(value: &str) -> bool {
    !value.bytes().any(|b| b.is_ascii_control() && b != b'\t')
}

/// `name=value` with NULs between, as `env` has it.
fn is_environment(value: &str) -> bool {
    value.split('\0').all(|pair| {
        pair.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty()
                && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                && is_printable(value)
        })
    })
}

impl Format {
    /// Says what is wrong with `value` of parameter `name`, if anything is.
    pub(crate) fn check(self, name: &str, value: &str) -> Result<(), String> {
        let fault = match self {
            Self::Any => None,
            Self::Vmid if is_vmid(value) => None,
            Self::Vmid => Some("value does not look like a valid VM ID\n".to_owned()),
            Self::VmidList => split_list(value)
                .find(|id| !is_vmid(id))
                .map(|_| "value does not look like a valid VM ID\n".to_owned()),
            Self::ConfigId if is_config_id(value) => None,
            Self::ConfigId => Some(format!("invalid configuration ID '{value}'\n")),
            Self::ConfigIdList => split_list(value)
                .find(|id| !is_config_id(id))
                .map(|id| format!("invalid configuration ID '{id}'\n")),
            Self::StorageId => (!(value.len() >= 2 && is_identifier(value, b"-_.")))
                .then(|| format!("storage ID '{value}' contains illegal characters\n")),
            Self::PoolId => value
                .split('/')
                .any(|part| {
                    part.is_empty()
                        || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                })
                .then(|| format!("pool name '{value}' contains invalid characters\n")),
            Self::DnsName => (!value.split('.').all(is_dns_label))
                .then(|| "value does not look like a valid DNS name\n".to_owned()),
            Self::TagList => {
                (!split_list(value).all(is_tag)).then(|| "invalid characters in tag\n".to_owned())
            }
            Self::Net => property::check(property::NET, name, value),
            Self::Features => property::check(property::FEATURES, name, value),
            Self::Rootfs => property::check(property::ROOTFS, name, value),
            Self::MountPoint => property::check(property::MOUNT_POINT, name, value),
            Self::OciReference => {
                if is_oci_reference(value) {
                    return Ok(());
                }
                return Err("value does not match the regex pattern".to_owned());
            }
            Self::Entrypoint | Self::Environment => {
                let fits = if self == Self::Environment {
                    is_environment(value)
                } else {
                    !value.is_empty() && is_printable(value)
                };
                if fits {
                    return Ok(());
                }
                return Err("value does not match the regex pattern".to_owned());
            }
            Self::TokenId => {
                if value.len() >= 2 && is_identifier(value, b".-_") {
                    return Ok(());
                }
                return Err("value does not match the regex pattern".to_owned());
            }
            Self::ContentList => split_list(value)
                .find(|kind| {
                    !["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "none", "import"]
                        .contains(kind)
                })
                .map(|kind| format!("invalid content type '{kind}'\n")),
            Self::Size => {
                let digits = value.strip_prefix('+').unwrap_or(value);
                let digits = digits.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(digits);
                let fits = digits.parse::<f64>().is_ok_and(|n| n >= 0.0 && n.is_finite());
                if fits {
                    return Ok(());
                }
                return Err("value does not match the regex pattern".to_owned());
            }
        };
        match fault {
            None => Ok(()),
            Some(text) => Err(format!("invalid format - {text}")),
        }
    }
}
