//! An application of the catalog, as its file and the API write it.

use std::collections::BTreeMap;

use proximity_domain::{Cores, Gibibytes, Mebibytes, Port};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// One entry: the old product's fields first, then ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CatalogApp {
    /// `a-z 0-9 - _ .`, at most 64; the first part of the ids of applications made from it.
    pub id: String,
    /// What a person reads.
    pub name: String,
    /// Version of the application itself.
    pub version: String,
    /// What it is for, in a sentence or two.
    pub description: String,
    /// Address of a picture.
    #[serde(default)]
    pub icon: Option<String>,
    /// One word that groups applications.
    pub category: String,
    /// A compose file as JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub docker_compose: Option<Map<String, Value>>,
    /// Ports that it serves on, inside its container.
    #[serde(default)]
    #[schema(value_type = Vec<u16>)]
    pub ports: Vec<Port>,
    /// Texts or objects: the old product allowed both.
    #[serde(default)]
    pub volumes: Vec<Value>,
    /// Constant values; those whose name says that they are secrets are replaced at deploy time.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// MiB.
    #[schema(value_type = u32)]
    pub min_memory: Mebibytes,
    /// Cores.
    #[schema(value_type = u16)]
    pub min_cpu: Cores,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Who wrote this entry.
    #[serde(default)]
    pub author: Option<String>,
    /// The application's own page.
    #[serde(default)]
    pub website: Option<String>,
    /// How it gets into its container; a file with `docker_compose` may leave it out.
    pub install: Install,
    /// What a person may set.
    #[serde(default)]
    pub params: Vec<Param>,
    /// What its container should have, when not the defaults.
    #[serde(default)]
    pub resources: ResourceWishes,
    /// Whether its container is unprivileged.
    #[serde(default = "yes")]
    pub unprivileged: bool,
    /// Proxmox container features, e.g. `nesting=1`.
    #[serde(default)]
    pub features: Option<String>,
    /// The first one is published.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// When a deployment counts as done.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Absolute paths that hold state.
    #[serde(default)]
    pub data: Vec<String>,
}

fn yes() -> bool {
    true
}

/// How an application gets into its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Install {
    /// A container from an OS template, then `setup` in it.
    Template {
        /// E.g. `alpine`.
        os: String,
        /// Of the system, e.g. `3.22`.
        version: String,
        /// Commands run in the container, in order.
        #[serde(default)]
        setup: Vec<String>,
    },
    /// The image is the container (Proxmox VE 9.1 and later).
    Oci {
        /// With registry and tag, e.g. `docker.io/library/nginx:1.29`.
        image: String,
        /// Command that it starts with, when not its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entrypoint: Option<String>,
    },
    /// Docker in a container, with `docker_compose` brought up in it.
    Compose {},
}

/// Something that a person may set; it reaches the application as environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// The name of the environment variable.
    pub name: String,
    /// What a person reads.
    pub label: String,
    /// Which kind of value it takes.
    #[serde(rename = "type")]
    pub kind: ParamKind,
    /// Its value when nobody sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ParamDefault>,
    /// The choices of a `select`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether a deployment without it is refused.
    #[serde(default)]
    pub required: bool,
    /// A regular expression that the whole value must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A sentence for the person who sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    Text,
    Number,
    Boolean,
    Select,
    /// Never stored in an event, a read model or a log, and never given back.
    Secret,
}

/// What a parameter is when nobody sets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamDefault {
    /// A random text of so many characters.
    Generate {
        /// Characters.
        generate: u16,
    },
    Constant(Value),
}

/// Written by hand: a constant is a single value, so that no object is both.
impl PartialSchema for ParamDefault {
    fn schema() -> RefOr<Schema> {
        let generate = ObjectBuilder::new()
            .property(
                "generate",
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .description(Some("Characters of a random text.")),
            )
            .required("generate");
        let single = |kind| ObjectBuilder::new().schema_type(kind);
        OneOfBuilder::new()
            .item(generate)
            .item(single(Type::String))
            .item(single(Type::Number))
            .item(single(Type::Boolean))
            .into()
    }
}

impl ToSchema for ParamDefault {}

/// What it would like to have; what is absent comes from the admin's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceWishes {
    /// Cores.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    pub cores: Option<Cores>,
    /// MiB.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub memory_mb: Option<Mebibytes>,
    /// GiB.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub disk_gb: Option<Gibibytes>,
    /// MiB.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub swap_mb: Option<Mebibytes>,
}

/// Where it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// E.g. `web`.
    pub name: String,
    /// Inside the container.
    #[schema(value_type = u16)]
    pub port: Port,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where its page starts, e.g. `/admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Http,
    Https,
    Tcp,
    Udp,
}

impl Protocol {
    /// The name used in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// When it counts as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// A GET that must be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A port that must accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Seconds after the start within which it must answer.
    #[serde(default = "patience")]
    pub within_s: u32,
}

/// Two minutes: the first start of most images creates a database.
pub(crate) fn patience() -> u32 {
    120
}

/// A GET that must be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Inside the container.
    #[schema(value_type = u16)]
    pub port: Port,
    /// Path that is asked for.
    #[serde(default = "root")]
    pub path: String,
    /// The status; any below 400 when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u16>,
}

fn root() -> String {
    "/".to_owned()
}

/// A port that must accept a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// Inside the container.
    #[schema(value_type = u16)]
    pub port: Port,
}
