//! One file's text to one checked application, or the field that is wrong and why.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proximity_domain::ApplicationId;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::app::{CatalogApp, HealthCheck, Install, Param, ParamDefault, ParamKind};
use crate::resolve::typed;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field, e.g. `params[2].pattern`; `(file)` when it is no JSON at all.
    pub field: String,
    /// A sentence for whoever wrote the file.
    pub reason: String,
}

impl Invalid {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

type Checked = Result<(), Invalid>;

/// Names under `/api/catalog/` that are no applications.
const RESERVED: [&str; 5] = ["categories", "category", "reload", "search", "stats"];
const REQUIRED: [&str; 7] =
    ["id", "name", "version", "description", "category", "min_memory", "min_cpu"];

/// Reads one file; everything that can be wrong with it is found here and nowhere later.
pub fn parse(text: &str) -> Result<CatalogApp, Invalid> {
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| Invalid::new("(file)", error.to_string()))?;
    let Some(object) = value.as_object_mut() else {
        return Err(Invalid::new("(file)", "an application is a JSON object"));
    };
    if let Some(missing) = REQUIRED.into_iter().find(|field| !object.contains_key(*field)) {
        return Err(Invalid::new(missing, "this field is required"));
    }
    if object.contains_key("default_credentials") {
        return Err(Invalid::new(
            "default_credentials",
            "known credentials are not allowed: declare a secret parameter with {\"generate\": 24}",
        ));
    }
    if !object.contains_key("install") {
        if object.get("docker_compose").is_none_or(Value::is_null) {
            return Err(Invalid::new(
                "install",
                "say how it is installed, here or by docker_compose",
            ));
        }
        object.insert("install".to_owned(), serde_json::json!({"kind": "compose"}));
    }
    let app: CatalogApp = serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        Invalid::new(field, error.into_inner().to_string())
    })?;
    check_identity(&app)?;
    check_install(&app)?;
    for (name, constant) in &app.environment {
        let field = format!("environment.{name}");
        check_variable(&field, name)?;
        if matches!(app.install, Install::Oci { .. }) && !is_one_line(constant) {
            return Err(Invalid::new(field, "a value is one line"));
        }
    }
    check_params(&app.params)?;
    check_endpoints(&app)?;
    app.health.as_ref().map_or(Ok(()), check_health)?;
    check_data(&app)?;
    Ok(app)
}

fn check_identity(app: &CatalogApp) -> Checked {
    if ApplicationId::new(&app.id, 0).is_err() || app.id.starts_with('.') {
        return Err(Invalid::new(
            "id",
            "an id has 1 to 64 of a-z, 0-9, '-', '_' and '.', and does not start with a dot",
        ));
    }
    if RESERVED.contains(&app.id.as_str()) {
        return Err(Invalid::new("id", format!("{:?} names a page of the catalog", app.id)));
    }
    let texts = [
        ("name", &app.name, 100),
        ("version", &app.version, 100),
        ("category", &app.category, 100),
        ("description", &app.description, 4_000),
    ];
    for (field, text, most) in texts {
        if text.trim().is_empty() || text.chars().count() > most {
            return Err(Invalid::new(field, format!("this is a text of 1 to {most} characters")));
        }
    }
    Ok(())
}

/// The pattern that Proxmox VE's `oci-registry-pull` has for its `reference`, with the registry required.
static IMAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let label = r"(?:[a-zA-Z\d]|[a-zA-Z\d][a-zA-Z\d-]*[a-zA-Z\d])";
    let part = r"[a-z\d]+(?:(?:[._]|__|-*)[a-z\d]+)*";
    Regex::new(&format!(
        r"^{label}(?:\.{label})*(?::\d+)?/{part}(?:/{part})*:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}$"
    ))
    .ok()
});

fn check_install(app: &CatalogApp) -> Checked {
    match &app.install {
        Install::Template { os, version, setup: _ } => {
            let word = |text: &str| {
                (1..=32).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            };
            if !word(os) {
                return Err(Invalid::new("install.os", "name a system, like alpine or debian"));
            }
            if !word(version) {
                return Err(Invalid::new("install.version", "name a version, like 3.22"));
            }
        }
        Install::Oci { image, entrypoint } => {
            if !IMAGE.as_ref().is_some_and(|pattern| pattern.is_match(image)) {
                return Err(Invalid::new(
                    "install.image",
                    "name the image with registry and tag, like docker.io/library/nginx:1.29",
                ));
            }
            if entrypoint.as_deref().is_some_and(|text| text.is_empty() || has_control(text)) {
                return Err(Invalid::new("install.entrypoint", "an entry point is one line"));
            }
        }
        Install::Compose {} => {
            if app.docker_compose.is_none() {
                return Err(Invalid::new("docker_compose", "install by compose needs this field"));
            }
        }
    }
    let feature = |text: &str| {
        text.split_once('=').is_some_and(|(key, value)| {
            !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && !value.is_empty()
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b';')
        })
    };
    match app.features.as_deref() {
        Some(text) if !text.split(',').all(feature) => {
            Err(Invalid::new("features", "features are written like nesting=1,keyctl=1"))
        }
        _ => Ok(()),
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Whether a text can be a variable's value. Proxmox keeps each variable as a line of the container's
/// configuration, where a line break would begin a line of its own, and between NULs.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

/// An environment variable's name: wider than POSIX, since images ask for names like `discovery.type`.
pub(crate) fn is_variable(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

fn check_variable(field: &str, name: &str) -> Checked {
    if is_variable(name) {
        Ok(())
    } else {
        Err(Invalid::new(field, "a variable has 1 to 128 visible ASCII characters and no '='"))
    }
}

/// A parameter's pattern, anchored at both ends and bounded in size.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(1 << 20).build()
}

fn check_params(params: &[Param]) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, param) in params.iter().enumerate() {
        let at = |field: &str| format!("params[{index}].{field}");
        check_variable(&at("name"), &param.name)?;
        if !seen.insert(&param.name) {
            return Err(Invalid::new(
                at("name"),
                format!("{:?} is declared more than once", param.name),
            ));
        }
        if param.label.trim().is_empty() {
            return Err(Invalid::new(at("label"), "a label must not be empty"));
        }
        if (param.kind == ParamKind::Select) == param.options.is_empty() {
            return Err(Invalid::new(at("options"), "a select, and nothing else, has options"));
        }
        if let Some(pattern) = &param.pattern {
            if !matches!(param.kind, ParamKind::Text | ParamKind::Secret) {
                return Err(Invalid::new(at("pattern"), "only text and secret have a pattern"));
            }
            compile(pattern).map_err(|error| Invalid::new(at("pattern"), error.to_string()))?;
        }
        check_default(param).map_err(|reason| Invalid::new(at("default"), reason))?;
    }
    Ok(())
}

fn check_default(param: &Param) -> Result<(), String> {
    match &param.default {
        None => Ok(()),
        Some(ParamDefault::Generate { generate }) if param.kind == ParamKind::Secret => {
            // Eight characters are 47 bits: less is no secret.
            if !(8..=256).contains(generate) {
                return Err("a secret is generated with 8 to 256 characters".to_owned());
            }
            if param.pattern.is_some() {
                return Err("a generated secret cannot have a pattern".to_owned());
            }
            Ok(())
        }
        Some(ParamDefault::Generate { .. }) => Err("only a secret is generated".to_owned()),
        Some(ParamDefault::Constant(_)) if param.kind == ParamKind::Secret => {
            Err("a secret has no constant default: use {\"generate\": 24}".to_owned())
        }
        Some(ParamDefault::Constant(value)) => match typed(param, value) {
            Ok(_) => Ok(()),
            Err((_, reason)) => Err(reason),
        },
    }
}

fn check_endpoints(app: &CatalogApp) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, endpoint) in app.endpoints.iter().enumerate() {
        if endpoint.name.trim().is_empty() || !seen.insert(&endpoint.name) {
            return Err(Invalid::new(
                format!("endpoints[{index}].name"),
                "each endpoint has a name of its own",
            ));
        }
        if let Some(path) = &endpoint.path {
            check_path(&format!("endpoints[{index}].path"), path)?;
        }
    }
    Ok(())
}

fn check_path(field: &str, path: &str) -> Checked {
    if path.starts_with('/') && !path.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Ok(())
    } else {
        Err(Invalid::new(field, "a path starts with '/' and has no blanks"))
    }
}

fn check_health(health: &HealthCheck) -> Checked {
    if health.http.is_none() && health.tcp.is_none() {
        return Err(Invalid::new("health", "say what to ask: http or tcp"));
    }
    if !(1..=3_600).contains(&health.within_s) {
        return Err(Invalid::new("health.within_s", "this lies between 1 and 3600 seconds"));
    }
    if let Some(http) = &health.http {
        check_path("health.http.path", &http.path)?;
        if http.expect.is_some_and(|status| !(100..=599).contains(&status)) {
            return Err(Invalid::new("health.http.expect", "a status lies between 100 and 599"));
        }
    }
    Ok(())
}

fn check_data(app: &CatalogApp) -> Checked {
    for (index, path) in app.data.iter().enumerate() {
        check_path(&format!("data[{index}]"), path)?;
    }
    Ok(())
}
