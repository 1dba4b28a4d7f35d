//! Holds the route table against Proxmox's own API description, where that file is at hand.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::all;
use crate::params::formats::Format;
use crate::params::{Kind, Param};

/// Calls of ours that the description at hand leaves out.
const NOT_DESCRIBED: &[&str] = &["POST /access/users"];

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn is_set(schema: &Value, key: &str) -> bool {
    matches!(schema.get(key), Some(Value::Number(n)) if n.as_i64() == Some(1))
        || schema.get(key) == Some(&Value::Bool(true))
        || schema.get(key) == Some(&Value::String("1".to_owned()))
}

fn differences(call: &str, ours: &Param, theirs: &Value) -> Vec<String> {
    let name = ours.name;
    let mut found = Vec::new();
    let mut differ = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{call} {name}: {what} is {ours} here and {theirs} there"));
        }
    };
    differ(
        "type",
        ours.kind.type_name().to_owned(),
        theirs["type"].as_str().unwrap_or("string").to_owned(),
    );
    differ("optional", ours.optional.to_string(), is_set(theirs, "optional").to_string());
    let requires = theirs["requires"].as_str().map(str::to_owned);
    differ("requires", format!("{:?}", ours.requires), format!("{:?}", requires.as_deref()));
    let limits = |low: &str, high: &str| (number(&theirs[low]), number(&theirs[high]));
    match &ours.kind {
        // Our limits are small enough for exact floats.
        #[allow(clippy::cast_precision_loss)]
        Kind::Integer { min, max, .. } => {
            let (low, high) = limits("minimum", "maximum");
            differ("minimum", format!("{:?}", min.map(|n| n as f64)), format!("{low:?}"));
            differ("maximum", format!("{:?}", max.map(|n| n as f64)), format!("{high:?}"));
        }
        Kind::Number { min, max } => {
            let (low, high) = limits("minimum", "maximum");
            differ("minimum", format!("{min:?}"), format!("{low:?}"));
            differ("maximum", format!("{max:?}"), format!("{high:?}"));
        }
        Kind::Text { min, max, format } => {
            let length = |key: &str| number(&theirs[key]).map(|n| format!("{n}"));
            // A storage id's length follows from its format there.
            differ(
                "shortest",
                min.to_string(),
                length("minLength").unwrap_or_else(|| "0".to_owned()),
            );
            differ(
                "longest",
                format!("{:?}", max.map(|n| n.to_string())),
                format!("{:?}", length("maxLength")),
            );
            let named = theirs["format"].as_str();
            let expected = match format {
                Format::VmidList => Some("pve-vmid-list"),
                Format::ConfigId => Some("pve-configid"),
                Format::ConfigIdList => Some("pve-configid-list"),
                Format::StorageId => Some("pve-storage-id"),
                Format::PoolId => Some("pve-poolid"),
                Format::DnsName => Some("dns-name"),
                Format::TagList => Some("pve-tag-list"),
                _ => None,
            };
            if let Some(expected) = expected {
                differ("format", expected.to_owned(), named.unwrap_or("none").to_owned());
            }
        }
        Kind::Choice(values) => {
            let list: Vec<&str> = theirs["enum"]
                .as_array()
                .map(|v| v.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            differ("choice", format!("{values:?}"), format!("{list:?}"));
        }
        Kind::Boolean | Kind::List => {}
    }
    found
}

#[test]
fn the_parameter_tables_agree_with_the_api_description() {
    let Ok(path) = std::env::var("PROXIMITY_PVE_SCHEMA") else {
        println!("skipped: PROXIMITY_PVE_SCHEMA names no api-schema.json");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let schema: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let mut faults = Vec::new();
    let (mut calls, mut parameters) = (0, 0);
    for route in all() {
        let call = format!("{} {}", route.method, route.path);
        let Some(described) = schema.get(&call) else {
            if !NOT_DESCRIBED.contains(&call.as_str()) {
                faults.push(format!("{call}: not in the description"));
            }
            continue;
        };
        calls += 1;
        if is_set(described, "protected") != route.protected {
            faults.push(format!("{call}: protected is {} here", route.protected));
        }
        let empty = serde_json::Map::new();
        let theirs = described["parameters"]["properties"].as_object().unwrap_or(&empty);
        let in_path = |name: &str| route.path.contains(&format!("{{{name}}}"));
        let names: BTreeSet<&str> = route.params.iter().map(|param| param.name).collect();
        for param in &route.params {
            match theirs.get(param.name) {
                None => faults.push(format!("{call} {}: only here", param.name)),
                Some(_) if in_path(param.name) => {}
                Some(theirs) => {
                    parameters += 1;
                    faults.extend(differences(&call, param, theirs));
                }
            }
        }
        for name in theirs.keys().filter(|name| !names.contains(name.as_str())) {
            faults.push(format!("{call} {name}: only there"));
        }
    }
    println!("{calls} calls and {parameters} parameters compared");
    assert!(calls > 50, "only {calls} calls were compared");
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}
