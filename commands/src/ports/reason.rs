//! Why a call to Proxmox failed, and in whose words.

use std::fmt;

/// Kept apart so that what Proxmox says goes only to those who may read it: `Ours` holds nothing of
/// Proxmox's, and no text of a library or the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// In our words; there was no answer, or none that says why.
    Ours(String),
    /// Proxmox answered with this status and these words.
    Answered { status: u16, words: String },
}

impl Reason {
    /// Whether the words hold these.
    pub fn says(&self, words: &str) -> bool {
        match self {
            Self::Ours(text) | Self::Answered { words: text, .. } => text.contains(words),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(text) => f.write_str(text),
            Self::Answered { status, words } => write!(f, "{status} {words}"),
        }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::Ours(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::Ours(text.to_owned())
    }
}
