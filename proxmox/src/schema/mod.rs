//! Holds every request that the client can send against Proxmox's own API description.
//!
//! The description is Proxmox's (AGPL) and therefore not part of this repository; the environment
//! variable `PROXIMITY_PVE_SCHEMA` names a file `{"GET /version": {"parameters": …}, …}`. Without it
//! the check says that it was skipped. The validator's own tests need no file.

mod format;
pub(crate) mod samples;
mod validator;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::request::Request;
use validator::complaints;

/// The names of all calls, taken from the source: a call added there must be sampled here.
fn declared() -> BTreeSet<&'static str> {
    include_str!("../request.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1))
        .collect()
}

#[test]
fn every_call_is_sampled() {
    let samples = samples::all();
    let sampled: BTreeSet<&str> = samples.iter().map(|(request, _)| request.call).collect();
    assert_eq!(sampled, declared());
    assert!(declared().len() >= 24);
}

#[test]
fn every_request_satisfies_the_api_description() {
    let Some(path) = std::env::var_os("PROXIMITY_PVE_SCHEMA") else {
        eprintln!("skipped: PROXIMITY_PVE_SCHEMA names no API description");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let samples = samples::all();
    let mut found = Vec::new();
    for (request, parts) in &samples {
        found.extend(complaints(&schema, request, parts));
    }
    eprintln!("{} requests of {} calls held against the schema", samples.len(), declared().len());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What a validator that checks nothing would let pass.
#[test]
fn the_validator_finds_planted_mistakes() {
    let schema = json!({
        "POST /access/ticket": {"parameters": {"properties": {
            "count": {"type": "integer", "minimum": 16, "maximum": 99, "optional": 1},
            "flag": {"type": "boolean", "optional": 1},
            "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "(?^i:[a-z]+)"},
            "kind": {"type": "string", "enum": ["a", "b"], "optional": 1},
            "node": {"type": "string", "format": "pve-node", "optional": 1},
            "odd": {"type": "string", "format": "never-heard-of", "optional": 1},
            "unique": {"type": "boolean", "optional": 1, "requires": "restore"},
            "net[n]": {"type": "string", "optional": 1, "format": {
                "name": {"type": "string", "pattern": "[-_.\\w\\d]+"},
                "mtu": {"type": "integer", "minimum": 64, "optional": 1},
                "ip": {"type": "string", "format": "pve-ipv4-config", "optional": 1}}},
            "rootfs": {"type": "string", "optional": 1, "format": {
                "volume": {"type": "string", "default_key": 1, "format": "pve-lxc-mp-string"},
                "ro": {"type": "boolean", "optional": 1}}}}}}
    });
    let with = |pairs: &[(&'static str, &str)]| {
        let mut request: Request = crate::request::ticket("", "");
        request.params = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        complaints(&schema, &request, &[])
    };
    let good = [
        ("name", "AbC"),
        ("count", "16"),
        ("flag", "1"),
        ("kind", "b"),
        ("node", "pve-1"),
        ("net0", "name=eth0,mtu=1500,ip=10.0.0.5/24"),
        ("net31", "name=eth1,ip=dhcp"),
        ("rootfs", "local:8,ro=1"),
    ];
    assert_eq!(with(&good), Vec::<String>::new());
    let mistakes: [&[(&'static str, &str)]; 19] = [
        &[],
        &[("name", "ab"), ("bogus", "1")],
        &[("name", "a")],
        &[("name", "abcde")],
        &[("name", "a1")],
        &[("name", "ab"), ("count", "15")],
        &[("name", "ab"), ("count", "100")],
        &[("name", "ab"), ("count", "x")],
        &[("name", "ab"), ("flag", "true")],
        &[("name", "ab"), ("kind", "c")],
        &[("name", "ab"), ("node", "-pve")],
        &[("name", "ab"), ("odd", "x")],
        &[("name", "ab"), ("unique", "1")],
        &[("name", "ab"), ("net0", "bridge=x")],
        &[("name", "ab"), ("net0", "name=eth0,mtu=1")],
        &[("name", "ab"), ("net0", "name=eth0,ip=10.0.0.5")],
        &[("name", "ab"), ("netx", "name=eth0")],
        &[("name", "ab"), ("rootfs", "ro=1")],
        &[("name", "ab"), ("name", "ab")],
    ];
    for mistake in mistakes {
        assert_eq!(with(mistake).len(), 1, "{mistake:?} gave {:?}", with(mistake));
    }
}
