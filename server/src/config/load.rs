//! Puts the settings together from flags, environment, file and defaults.

use std::path::{Path, PathBuf};

use super::{Config, Error, KEYS, Key};

/// Read when no `--config` names another one; it need not exist.
const DEFAULT_FILE: &str = "/etc/proximity/config.toml";

/// Where settings come from; the environment is passed in so that tests bring their own.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// Keys set by flags, strongest.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// This process's environment and nothing else yet.
    pub fn from_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file: None, environment, flags: Vec::new() }
    }
}

/// Reads all sources; the first key that is unknown or wrong is an error that names it.
pub fn load(sources: &Sources) -> Result<Config, Error> {
    let mut config = Config::default();
    apply_file(&mut config, sources.file.as_deref())?;
    apply_environment(&mut config, &sources.environment)?;
    for (key, value) in &sources.flags {
        set(&mut config, key, value, "command line")?;
    }
    let tls = (&config.server.tls_certificate, &config.server.tls_key);
    if let (Some(_), None) | (None, Some(_)) = tls {
        return Err(Error::Value {
            key: "server.tls_key".into(),
            place: "settings".into(),
            reason: "a certificate and its key are given together".into(),
        });
    }
    let (public, internal) = (config.public_ports, config.internal_ports);
    if public.first <= internal.last && internal.first <= public.last {
        // Each of them is one application's, whichever of its two views it is.
        return Err(Error::Value {
            key: "ports.internal".into(),
            place: "settings".into(),
            reason: "the ranges of public and internal ports overlap".into(),
        });
    }
    Ok(config)
}

fn apply_file(config: &mut Config, named: Option<&Path>) -> Result<(), Error> {
    let path = named.unwrap_or_else(|| Path::new(DEFAULT_FILE)).to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        Err(source) => return Err(Error::File { path, source }),
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        path: path.clone(),
        reason: error.message().to_owned(),
    })?;
    let place = path.display().to_string();
    for (section, entries) in &table {
        let toml::Value::Table(entries) = entries else {
            set(config, section, "", &place)?;
            continue;
        };
        for (name, value) in entries {
            let key = format!("{section}.{name}");
            let value = as_text(value).ok_or_else(|| Error::Value {
                key: key.clone(),
                place: place.clone(),
                reason: "it is a text, a number, true or false, or a list of texts".into(),
            })?;
            set(config, &key, &value, &place)?;
        }
    }
    Ok(())
}

/// One parser per key serves file, environment and flags: all of them arrive as text.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn apply_environment(config: &mut Config, variables: &[(String, String)]) -> Result<(), Error> {
    // The customary names first, so that ours win over them.
    for (variable, value) in variables {
        match variable.as_str() {
            "DATABASE_URL" => set(config, "database.url", value, variable)?,
            "PROXIMITY_MASTER_KEY_FILE" => {
                set(config, "secrets.master_key_file", value, variable)?;
            }
            _ => {}
        }
    }
    // A variable of ours has a section; others that merely start alike are not settings.
    for (variable, value) in variables
        .iter()
        .filter(|(variable, _)| variable.starts_with("PROXIMITY_") && variable.contains("__"))
    {
        if let Some(key) = KEYS.iter().find(|key| key.variable() == *variable) {
            set(config, key.name, value, variable)?;
        } else if let Some(key) = file_variable(variable) {
            let path = PathBuf::from(value);
            let content =
                std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
            set(config, key.name, content.trim_end_matches(['\r', '\n']), variable)?;
        } else {
            let key = variable["PROXIMITY_".len()..].to_ascii_lowercase().replace("__", ".");
            return Err(unknown(&key, variable));
        }
    }
    Ok(())
}

/// The secret whose value stands in the file that this variable names.
fn file_variable(variable: &str) -> Option<&'static Key> {
    let base = variable.strip_suffix("_FILE")?;
    KEYS.iter().find(|key| key.secret && key.variable() == base)
}

fn set(config: &mut Config, key: &str, value: &str, place: &str) -> Result<(), Error> {
    let known = KEYS.iter().find(|known| known.name == key).ok_or_else(|| unknown(key, place))?;
    (known.set)(config, value).map_err(|reason| Error::Value {
        key: key.to_owned(),
        place: place.to_owned(),
        reason,
    })
}

fn unknown(key: &str, place: &str) -> Error {
    let near = KEYS
        .iter()
        .map(|known| (distance(known.name, key), known.name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name);
    Error::UnknownKey { key: key.to_owned(), place: place.to_owned(), near }
}

/// Letters that have to be changed, added or taken away (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
