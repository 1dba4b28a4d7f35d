//! A host name that is one RFC 1123 label, case-folded, so that `Web` and `web.` are one name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// One RFC 1123 label: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen.
///
/// Parsing folds upper case and drops one trailing dot (the root); nothing else is repaired.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

impl Hostname {
    /// The folded name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let refuse = |why: &str| Err(ValueError::new("hostname.invalid", why));
        if name.is_empty() {
            return refuse("a hostname must not be empty");
        }
        if name.len() > 63 {
            return refuse("a hostname has at most 63 characters");
        }
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return refuse("a hostname consists of letters, digits and hyphens only");
        }
        if name.starts_with('-') || name.ends_with('-') {
            return refuse("a hostname must not start or end with a hyphen");
        }
        Ok(Self(name))
    }
}

impl TryFrom<String> for Hostname {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
