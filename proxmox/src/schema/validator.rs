//! Checks one request against one call of the description, as Proxmox's own JSON schema code does.

use regex::Regex;
use serde_json::{Map, Value};

use super::format;
use crate::request::Request;

/// All that is wrong with a request; `parts` are the values of its path's placeholders, in order.
pub(super) fn complaints(schema: &Value, request: &Request, parts: &[String]) -> Vec<String> {
    let call = request.call;
    let Some(entry) = schema.get(call) else {
        return vec![format!("{call}: not in the description")];
    };
    let none = Map::new();
    let properties = entry["parameters"]["properties"].as_object().unwrap_or(&none);
    let placeholders = call.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut given: Vec<(&str, &str)> =
        placeholders.zip(parts).map(|(name, value)| (name, value.as_str())).collect();
    given.extend(request.params.iter().map(|(name, value)| (*name, value.as_str())));
    let mut found = members(properties, &given);
    for (name, _) in &given {
        if let Some(other) = property(properties, name).and_then(|rule| rule["requires"].as_str())
            && !given.iter().any(|(given, _)| *given == other)
        {
            found.push(format!("{name}: requires {other}"));
        }
    }
    found.into_iter().map(|complaint| format!("{call}: {complaint}")).collect()
}

/// The rule of a parameter; `net0` is ruled by `net[n]`.
fn property<'a>(properties: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    properties
        .get(name)
        .or_else(|| (stem != name).then(|| properties.get(&format!("{stem}[n]"))).flatten())
}

fn is_set(rule: &Value, key: &str) -> bool {
    matches!(&rule[key], Value::Number(n) if n.as_u64() == Some(1)) || rule[key] == true
}

/// Known, given once, none missing, each in itself right.
fn members(properties: &Map<String, Value>, given: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, (name, value)) in given.iter().enumerate() {
        if given[..index].iter().any(|(earlier, _)| earlier == name) {
            found.push(format!("{name}: given twice"));
        }
        match property(properties, name) {
            None => found.push(format!("{name}: not defined in the schema")),
            Some(rule) => {
                found.extend(wrong(rule, value).map(|why| format!("{name}: {why}")));
            }
        }
    }
    for (name, rule) in properties {
        let present = given.iter().any(|(given, _)| given == name);
        if !present && !is_set(rule, "optional") {
            found.push(format!("{name}: missing and not optional"));
        }
    }
    found
}

/// A number in the description; some stand there as texts.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// The first thing that is wrong with a value.
fn wrong(rule: &Value, value: &str) -> Option<String> {
    let kind = rule["type"].as_str().unwrap_or("string");
    let typed = match kind {
        "integer" => {
            let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        "number" => value.parse::<f64>().is_ok_and(f64::is_finite),
        // Forms know no other spelling.
        "boolean" => value == "0" || value == "1",
        "string" => true,
        other => return Some(format!("no check for type {other}")),
    };
    if !typed {
        return Some(format!("type check ('{kind}') failed"));
    }
    if kind == "integer" || kind == "number" {
        let figure: f64 = value.parse().unwrap();
        if number(&rule["minimum"]).is_some_and(|least| figure < least)
            || number(&rule["maximum"]).is_some_and(|most| figure > most)
        {
            return Some("out of range".to_owned());
        }
    }
    let length = value.chars().count() as f64;
    if number(&rule["minLength"]).is_some_and(|least| length < least)
        || number(&rule["maxLength"]).is_some_and(|most| length > most)
    {
        return Some("wrong length".to_owned());
    }
    if let Some(values) = rule["enum"].as_array()
        && !values.iter().any(|allowed| allowed == value)
    {
        return Some("not in the enumeration".to_owned());
    }
    if let Some(pattern) = rule["pattern"].as_str()
        && !perl(pattern).is_match(value)
    {
        return Some("does not match the pattern".to_owned());
    }
    match &rule["format"] {
        Value::String(name) => format::wrong(name, value),
        Value::Object(members) => property_string(members, value),
        _ => None,
    }
}

/// Perl's spelling of groups and of NUL in Rust's; anchored, as Proxmox anchors it.
fn perl(pattern: &str) -> Regex {
    let pattern = pattern.replace("(?^i:", "(?i:").replace("(?^:", "(?:").replace("\\0", "\\x00");
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

/// `key=value` separated by commas; one key may go unnamed.
fn property_string(rules: &Map<String, Value>, text: &str) -> Option<String> {
    let default = rules.iter().find(|(_, rule)| is_set(rule, "default_key")).map(|(key, _)| key);
    let mut given = Vec::new();
    for member in text.split(',') {
        match (member.split_once('='), default) {
            (Some(pair), _) => given.push(pair),
            (None, Some(key)) => given.push((key.as_str(), member)),
            (None, None) => return Some("a member without a name".to_owned()),
        }
    }
    let found = members(rules, &given);
    (!found.is_empty()).then(|| found.join("; "))
}
