//! What a container is given: cores, memory, disk, and the environment of its application.

use serde::{Deserialize, Serialize};

use super::{Cores, Gibibytes, Mebibytes, SecretId};

/// What one container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cores: Cores,
    pub memory: Mebibytes,
    pub disk: Gibibytes,
    pub swap: Mebibytes,
}

/// One value of an application's environment; a secret is named, never carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Plain(String),
    Secret(SecretId),
}
