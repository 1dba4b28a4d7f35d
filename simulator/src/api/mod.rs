//! The handlers, one file for each part of the API.

pub(crate) mod access;
pub(crate) mod backup;
pub(crate) mod clone;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod destroy;
pub(crate) mod disks;
pub(crate) mod lxc;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod power;
pub(crate) mod restore;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod storage;
pub(crate) mod task;

use serde_json::{Value, json};

/// The rows of an rrd reply: seventy steps, of which only the last few hold samples.
pub(crate) fn rrd_rows(
    timeframe: &str,
    now: i64,
    since: Option<i64>,
    sample: &serde_json::Map<String, Value>,
) -> Value {
    let step = match timeframe {
        "hour" => 60,
        "day" => 1_800,
        "week" => 10_800,
        "month" => 43_200,
        "year" => 604_800,
        _ => 6_048_000,
    };
    let last = now / step * step;
    let rows = (0..60).rev().map(|back| {
        let time = last - back * step;
        let mut row = serde_json::Map::new();
        if since.is_some_and(|since| time >= since) {
            row = sample.clone();
        }
        row.insert("time".to_owned(), json!(time));
        Value::Object(row)
    });
    Value::Array(rows.collect())
}
