//! An entry and what a person asked for, turned into everything that a deployment needs.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::application::Endpoint as Published;
use proximity_domain::plan::{Health, Probe, Source};
use proximity_domain::{EnvValue, Resources, SecretId};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::{CatalogApp, Install, Param, ParamDefault, ParamKind, Protocol, patience};
use crate::parse::{compile, is_one_line, is_variable};

/// The longest value in bytes.
const MAX_VALUE: usize = 32 << 10;
/// The most values that can be sent in one request.
const MAX_VALUES: usize = 200;
/// Length of a secret that stands in for a constant of the old schema.
const REPLACED_LENGTH: u16 = 24;

/// What a person asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Values of parameters, by name.
    pub config: &'a Map<String, Value>,
    /// Values beside the parameters; one that names a parameter counts as that parameter's.
    pub environment: &'a Map<String, Value>,
    /// The admin's defaults.
    pub defaults: Resources,
}

/// One field of a request that is wrong; never holds the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer into the request, e.g. `/config/ADMIN_PASSWORD`.
    pub pointer: String,
    /// Stable dotted code, e.g. `param.required`.
    pub code: &'static str,
    /// A sentence for the caller.
    pub detail: String,
}

/// Everything about a deployment that the catalog decides.
#[derive(Debug)]
pub struct Deployment {
    pub source: Source,
    pub resources: Resources,
    pub unprivileged: bool,
    /// Proxmox `features`, e.g. `nesting=1`.
    pub features: Option<String>,
    /// Where the published port leads to.
    pub endpoint: Option<Published>,
    pub health: Health,
    pub values: Values,
}

/// The environment that the application gets, its secrets still in clear.
#[derive(Debug)]
pub struct Values {
    pub environment: BTreeMap<String, Choice>,
    /// The names that came in `config`.
    pub config: BTreeSet<String>,
}

/// One value.
#[derive(Debug)]
pub enum Choice {
    /// Its parameter is declared plain.
    Plain(String),
    /// Anything else; prints as redacted and is wiped when dropped.
    Secret(SecretString),
}

/// The values as events carry them, and the secrets to be stored beside them.
#[derive(Debug)]
pub struct Sealed {
    pub environment: BTreeMap<String, EnvValue>,
    /// Those of `environment` that came in `config`, under the same references.
    pub config: BTreeMap<String, EnvValue>,
    pub secrets: Vec<SealedSecret>,
}

/// A secret and the record that it goes into.
#[derive(Debug)]
pub struct SealedSecret {
    pub id: SecretId,
    /// The variable.
    pub name: String,
    pub value: SecretString,
}

impl Values {
    /// Gives every secret a record of its own and puts the reference in its place.
    pub fn seal(self, mut new_id: impl FnMut() -> SecretId) -> Sealed {
        let mut sealed =
            Sealed { environment: BTreeMap::new(), config: BTreeMap::new(), secrets: Vec::new() };
        for (name, choice) in self.environment {
            let value = match choice {
                Choice::Plain(text) => EnvValue::Plain(text),
                Choice::Secret(value) => {
                    let id = new_id();
                    sealed.secrets.push(SealedSecret { id, name: name.clone(), value });
                    EnvValue::Secret(id)
                }
            };
            if self.config.contains(&name) {
                sealed.config.insert(name.clone(), value.clone());
            }
            sealed.environment.insert(name, value);
        }
        sealed
    }
}

impl CatalogApp {
    /// Decides all that follows from this entry and the request; every wrong field is named.
    ///
    /// Pure: `random` fills a buffer with random bytes, and is asked once for each generated secret.
    pub fn resolve(
        &self,
        request: Request<'_>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Deployment, Vec<FieldError>> {
        let source = self.source().map_err(|error| vec![error])?;
        let values = self.values(request, random)?;
        Ok(Deployment {
            source,
            resources: self.fitting(request.defaults),
            unprivileged: self.unprivileged,
            features: self.features.clone(),
            endpoint: self.published(),
            health: self.judged(),
            values,
        })
    }

    /// What its container is made from, or why that cannot be done yet.
    pub fn source(&self) -> Result<Source, FieldError> {
        let later = |detail: &str| FieldError {
            pointer: "/catalog_id".to_owned(),
            code: "catalog.install_unsupported",
            detail: format!("{:?} {detail}", self.id),
        };
        match &self.install {
            Install::Template { os, version, setup } if setup.is_empty() => {
                Ok(Source::Template { os: os.clone(), version: version.clone() })
            }
            Install::Template { .. } => {
                Err(later("needs commands run in its container, which is not supported yet"))
            }
            Install::Oci { image, entrypoint } => {
                Ok(Source::Oci { image: image.clone(), entrypoint: entrypoint.clone() })
            }
            Install::Compose {} => {
                Err(later("is installed by docker compose, which is not supported yet"))
            }
        }
    }

    /// Its own wishes, else the defaults, never under its minimum.
    pub fn fitting(&self, defaults: Resources) -> Resources {
        let wish = self.resources;
        Resources {
            cores: wish.cores.unwrap_or(defaults.cores).max(self.min_cpu),
            memory: wish.memory_mb.unwrap_or(defaults.memory).max(self.min_memory),
            disk: wish.disk_gb.unwrap_or(defaults.disk),
            swap: wish.swap_mb.unwrap_or(defaults.swap),
        }
    }

    /// The first endpoint; an entry of the old schema serves HTTP on its first port.
    pub fn published(&self) -> Option<Published> {
        match self.endpoints.first() {
            Some(first) => Some(Published {
                port: first.port,
                protocol: first.protocol.as_str().to_owned(),
                path: first.path.clone(),
            }),
            None => self.ports.first().map(|port| Published {
                port: *port,
                protocol: Protocol::Http.as_str().to_owned(),
                path: None,
            }),
        }
    }

    /// Its own health check, else one that its first endpoint or port suggests.
    pub fn judged(&self) -> Health {
        let within_s = self.health.as_ref().map_or_else(patience, |health| health.within_s);
        let declared =
            self.health.as_ref().and_then(|health| match (&health.http, health.tcp.as_ref()) {
                (Some(http), _) => Some(Probe::Http {
                    port: http.port,
                    path: http.path.clone(),
                    expect: http.expect,
                }),
                (None, tcp) => tcp.map(|tcp| Probe::Tcp { port: tcp.port }),
            });
        let suggested = || match self.endpoints.first() {
            Some(first) if first.protocol == Protocol::Udp => Probe::Running,
            Some(first) => Probe::Tcp { port: first.port },
            None => self.ports.first().map_or(Probe::Running, |port| Probe::Tcp { port: *port }),
        };
        Health { probe: declared.unwrap_or_else(suggested), within_s }
    }

    fn values(
        &self,
        request: Request<'_>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Values, Vec<FieldError>> {
        let mut wrong = Vec::new();
        let mut environment: BTreeMap<String, Choice> = BTreeMap::new();
        let mut note = |pointer: String, code, detail: String| {
            wrong.push(FieldError { pointer, code, detail });
        };
        if request.config.len() + request.environment.len() > MAX_VALUES {
            note(
                "/environment".to_owned(),
                "environment.too_many",
                format!("at most {MAX_VALUES} values can be sent"),
            );
        }
        let declared: BTreeMap<&str, &Param> =
            self.params.iter().map(|param| (param.name.as_str(), param)).collect();

        for param in &self.params {
            let (pointer, sent) = sent(request, &param.name);
            let choice = match sent.filter(|value| is_set(param, value)) {
                Some(value) => typed(param, value).map(|text| Some(chosen(param, text))),
                None => default_of(param, random),
            };
            match choice {
                Ok(Some(choice)) => {
                    environment.insert(param.name.clone(), choice);
                }
                Ok(None) if param.required => {
                    note(pointer, "param.required", format!("{} is required", param.label));
                }
                Ok(None) => {}
                Err((code, detail)) => note(pointer, code, detail),
            }
        }
        for (place, values) in [("config", request.config), ("environment", request.environment)] {
            for (name, value) in values {
                if declared.contains_key(name.as_str()) || value.is_null() {
                    continue;
                }
                let choice = if is_variable(name) {
                    scalar(value)
                } else {
                    Err((
                        "environment.name_invalid",
                        "a variable has 1 to 128 visible ASCII characters and no '='".to_owned(),
                    ))
                };
                match choice {
                    Ok(text) => {
                        environment.insert(name.clone(), Choice::Secret(text.into()));
                    }
                    Err((code, detail)) => note(pointer(place, name), code, detail),
                }
            }
        }
        for (name, constant) in &self.environment {
            // Only what a parameter declares plain is shown; a known constant is no secret at all.
            environment.entry(name.clone()).or_insert_with(|| {
                Choice::Secret(if names_a_secret(name) {
                    generate(REPLACED_LENGTH, random)
                } else {
                    constant.clone().into()
                })
            });
        }
        let config =
            request.config.keys().filter(|name| environment.contains_key(*name)).cloned().collect();
        if wrong.is_empty() { Ok(Values { environment, config }) } else { Err(wrong) }
    }
}

/// The value sent for a parameter, and where; `environment` is looked at first.
fn sent<'a>(request: Request<'a>, name: &str) -> (String, Option<&'a Value>) {
    match request.environment.get(name) {
        Some(value) => (pointer("environment", name), Some(value)),
        None => (pointer("config", name), request.config.get(name)),
    }
}

fn pointer(place: &str, name: &str) -> String {
    format!("/{place}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A form sends an empty field for what nobody filled in; only a text may be meant to be empty.
fn is_set(param: &Param, value: &Value) -> bool {
    let may_be_empty = param.kind == ParamKind::Text && !param.required;
    !value.is_null() && (may_be_empty || value.as_str() != Some(""))
}

fn chosen(param: &Param, text: String) -> Choice {
    match param.kind {
        ParamKind::Secret => Choice::Secret(text.into()),
        ParamKind::Text | ParamKind::Number | ParamKind::Boolean | ParamKind::Select => {
            Choice::Plain(text)
        }
    }
}

type Refusal = (&'static str, String);

fn default_of(param: &Param, random: &mut dyn FnMut(&mut [u8])) -> Result<Option<Choice>, Refusal> {
    match &param.default {
        None => Ok(None),
        Some(ParamDefault::Generate { generate: length }) => {
            Ok(Some(Choice::Secret(generate(*length, random))))
        }
        Some(ParamDefault::Constant(value)) => Ok(Some(chosen(param, typed(param, value)?))),
    }
}

/// The text that a value of this parameter's type becomes; the refusal never repeats the value.
pub(crate) fn typed(param: &Param, value: &Value) -> Result<String, Refusal> {
    let refuse = |detail: String| ("param.invalid", detail);
    let label = &param.label;
    let text = match (param.kind, value) {
        (ParamKind::Number, Value::Number(number)) => number.to_string(),
        (ParamKind::Number, Value::String(text))
            if text.parse::<f64>().is_ok_and(f64::is_finite) =>
        {
            text.clone()
        }
        (ParamKind::Number, _) => return Err(refuse(format!("{label} is a number"))),
        (ParamKind::Boolean, Value::Bool(yes)) => yes.to_string(),
        (ParamKind::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            text.clone()
        }
        (ParamKind::Boolean, _) => return Err(refuse(format!("{label} is true or false"))),
        (ParamKind::Text | ParamKind::Select | ParamKind::Secret, value) => scalar(value)?,
    };
    if param.kind == ParamKind::Select && !param.options.contains(&text) {
        return Err(refuse(format!("{label} is one of {}", param.options.join(", "))));
    }
    if let Some(pattern) = &param.pattern {
        let pattern = compile(pattern).map_err(|_| refuse(format!("{label} has a bad pattern")))?;
        if !pattern.is_match(&text) {
            return Err(refuse(format!("{label} does not have the required form")));
        }
    }
    Ok(text)
}

fn scalar(value: &Value) -> Result<String, Refusal> {
    let refuse = |detail: &str| Err(("environment.value_invalid", detail.to_owned()));
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(_) => {
            return refuse(
                "a number that is not whole, or very large, is sent as a text: it would change",
            );
        }
        Value::Bool(yes) => yes.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return refuse("a value is a text, a number or a boolean");
        }
    };
    if text.len() > MAX_VALUE {
        return Err((
            "environment.value_invalid",
            format!("a value has at most {MAX_VALUE} bytes"),
        ));
    }
    if !is_one_line(&text) {
        return refuse("a value is one line without control characters; a tab may be in it");
    }
    Ok(text)
}

/// Whether a constant under this name was meant to be a secret.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "SECRET", "TOKEN", "KEY"].iter().any(|end| name.ends_with(end))
}

/// A random text of letters and digits; 24 of them are 142 bits.
fn generate(length: u16, random: &mut dyn FnMut(&mut [u8])) -> SecretString {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0_u8; usize::from(length) * 4];
    random(&mut bytes);
    // 2^32 modulo 62 is 4: the bias of taking the remainder is below 2^-26.
    let text: String = bytes
        .chunks_exact(4)
        .map(|four| {
            let number = four.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            LETTERS.get(usize::try_from(number % 62).unwrap_or_default()).copied().unwrap_or(b'A')
        })
        .map(char::from)
        .collect();
    bytes.fill(0);
    text.into()
}
