//! One item as one line of JSON, and back.
//!
//! An event is `{"event": [position, stream type, stream id, sequence, type, version, payload, metadata,
//! time]}`, payload and metadata as the text that was stored. A row is `{"table": name, "row": {…}}`;
//! bytes are hexadecimal digits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Item, table};
use crate::append::Recorded;
use crate::error::Error;
use crate::side::{Column, ColumnType, Row, Value};

#[derive(Serialize, Deserialize)]
struct EventLine {
    event: (u64, String, String, u64, String, String, String, String, i64),
}

#[derive(Serialize, Deserialize)]
struct RowLine {
    table: String,
    row: Map<String, Json>,
}

pub(super) fn write(item: &Item) -> Result<String, Error> {
    let text = match item {
        Item::Event(event) => {
            let Recorded { position, sequence, recorded_at, .. } = *event;
            let event = event.clone();
            serde_json::to_string(&EventLine {
                event: (
                    position,
                    event.aggregate_type,
                    event.aggregate_id,
                    sequence,
                    event.event_type,
                    event.event_version,
                    event.payload,
                    event.metadata,
                    recorded_at,
                ),
            })
        }
        Item::Row(table, row) => {
            let cells = row.iter().filter_map(|(name, value)| {
                let json = match value {
                    // A column that a later version adds does not change the digest of older rows.
                    Value::Null => return None,
                    Value::Text(text) => Json::from(text.as_str()),
                    Value::Integer(number) => Json::from(*number),
                    Value::Boolean(yes) => Json::from(*yes),
                    Value::Bytes(bytes) => Json::from(crate::hex(bytes)),
                };
                Some(((*name).to_owned(), json))
            });
            serde_json::to_string(&RowLine { table: table.name.to_owned(), row: cells.collect() })
        }
    };
    text.map_err(|error| Error::malformed(format!("a line cannot be written: {error}")))
}

pub(super) fn read(text: &str) -> Result<Item, Error> {
    if text.starts_with("{\"event\"") {
        let EventLine { event } = serde_json::from_str(text).map_err(|_| bad("an event"))?;
        return Ok(Item::Event(Recorded {
            position: event.0,
            aggregate_type: event.1,
            aggregate_id: event.2,
            sequence: event.3,
            event_type: event.4,
            event_version: event.5,
            payload: event.6,
            metadata: event.7,
            recorded_at: event.8,
        }));
    }
    let RowLine { table: name, row } = serde_json::from_str(text).map_err(|_| bad("a row"))?;
    let table = table(&name).ok_or_else(|| newer(&format!("table {name}")))?;
    let mut found = Row::with_capacity(table.columns.len());
    let mut known = 0;
    for column in table.columns {
        let value = match row.get(column.name) {
            None => Value::Null,
            Some(json) => {
                known += 1;
                value(column, json).ok_or_else(|| bad(&format!("{name}.{}", column.name)))?
            }
        };
        found.push((column.name, value));
    }
    if known != row.len() {
        return Err(newer(&format!("a column of table {name}")));
    }
    Ok(Item::Row(table, found))
}

fn value(column: &Column, json: &Json) -> Option<Value> {
    Some(match column.kind {
        ColumnType::Text => Value::Text(json.as_str()?.to_owned()),
        ColumnType::Integer => Value::Integer(json.as_i64()?),
        ColumnType::Boolean => Value::Boolean(json.as_bool()?),
        ColumnType::Bytes => Value::Bytes(unhex(json.as_str()?)?),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn bad(what: &str) -> Error {
    Error::malformed(format!("the backup: {what} is not readable"))
}

fn newer(what: &str) -> Error {
    Error::malformed(format!(
        "the backup has {what}, which this program does not know: use a newer one"
    ))
}
