//! Checks the parameters of a call against its specification and answers each fault in Proxmox's words.

use std::collections::BTreeMap;

use super::spec::{Kind, Param};
use crate::reply::Refusal;

/// Parameters that passed. Booleans are `0` or `1`, lists are joined by NUL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(pub(crate) BTreeMap<String, String>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that the specification requires; empty only if the specification does not.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|text| text.parse().ok())
    }

    pub(crate) fn vmid(&self, name: &str) -> u32 {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// The specification that a name falls under, numbered families included.
fn spec_for<'a>(specs: &'a [Param], name: &str) -> Option<&'a Param> {
    specs.iter().find(|spec| match spec.name.strip_suffix("[n]") {
        None => spec.name == name,
        Some(family) => name
            .strip_prefix(family)
            .filter(|index| !index.is_empty() && (*index == "0" || !index.starts_with('0')))
            .and_then(|index| index.parse::<u16>().ok())
            .is_some_and(|index| index < family_size(family)),
    })
}

fn family_size(family: &str) -> u16 {
    if family == "net" { 32 } else { 256 }
}

/// Verifies `given` against `specs`. Every fault is listed, one per parameter.
pub(crate) fn verify(specs: &[Param], given: &BTreeMap<String, String>) -> Result<Params, Refusal> {
    let mut errors = BTreeMap::new();
    let mut params = BTreeMap::new();
    for (name, value) in given {
        let Some(spec) = spec_for(specs, name) else {
            errors.insert(
                name.clone(),
                "property is not defined in schema and the schema does not allow additional \
                 properties"
                    .to_owned(),
            );
            continue;
        };
        match check(&spec.kind, name, value) {
            Ok(()) => {
                params.insert(name.clone(), value.clone());
            }
            Err(text) => {
                errors.insert(name.clone(), text);
            }
        }
        if let Some(other) = spec.requires
            && !given.contains_key(other)
        {
            errors.insert(
                other.to_owned(),
                format!("missing property - '{name}' requires this property"),
            );
        }
    }
    for spec in specs.iter().filter(|spec| !spec.optional) {
        if !given.contains_key(spec.name) {
            errors.insert(
                spec.name.to_owned(),
                "property is missing and it is not optional".to_owned(),
            );
        }
    }
    if errors.is_empty() { Ok(Params(params)) } else { Err(Refusal::parameters(errors)) }
}

/// Checks one value. The order is Proxmox's: type, format, then length or range.
pub(crate) fn check(kind: &Kind, name: &str, value: &str) -> Result<(), String> {
    match kind {
        Kind::Boolean if value == "0" || value == "1" => Ok(()),
        Kind::Boolean => Err(format!("type check ('boolean') failed - got '{value}'")),
        Kind::Integer { min, max, format } => {
            let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("type check ('integer') failed - got '{value}'"));
            }
            format.check(name, value)?;
            // What does not fit into 64 bits is beyond any limit.
            let number = value.parse::<i64>().unwrap_or(i64::MAX);
            range(number, *min, *max)
        }
        Kind::Number { min, max } => {
            let number = value
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or_else(|| format!("type check ('number') failed - got '{value}'"))?;
            range(number, *min, *max)
        }
        Kind::Text { min, max, format } => {
            format.check(name, value)?;
            let length = value.chars().count();
            if length < *min {
                return Err(format!("value must be at least {min} characters long"));
            }
            match max {
                Some(max) if length > *max => {
                    Err(format!("value may only be {max} characters long"))
                }
                _ => Ok(()),
            }
        }
        Kind::Choice(values) if values.contains(&value) => Ok(()),
        Kind::Choice(values) => Err(format!(
            "value '{value}' does not have a value in the enumeration '{}'",
            values.join(", ")
        )),
        Kind::List => Ok(()),
    }
}

fn range<N: PartialOrd + std::fmt::Display>(
    number: N,
    min: Option<N>,
    max: Option<N>,
) -> Result<(), String> {
    if let Some(min) = min
        && number < min
    {
        return Err(format!("value must have a minimum value of {min}"));
    }
    match max {
        Some(max) if number > max => Err(format!("value must have a maximum value of {max}")),
        _ => Ok(()),
    }
}
