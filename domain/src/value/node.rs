//! Names that Proxmox VE gives: a node's and a cluster's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $code:literal, $what:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as Proxmox writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ValueError::new($code, concat!($what, " consists of 1 to 63 letters, digits and inner hyphens")))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

name_type! {
    /// A Proxmox node (schema format `pve-node`: letters, digits, inner hyphens; at most 63).
    NodeName, "node.invalid", "a node name", is_label
}

name_type! {
    /// What makes VMIDs unique: Proxmox's cluster name, or a lone node's own identity.
    ///
    /// A cluster is `<name>`; a lone node is `node-<16 hex digits of its certificate authority>`.
    ClusterName, "cluster.invalid", "a cluster name", is_label
}
