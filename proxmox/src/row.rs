//! Reads Proxmox's loosely typed JSON strictly where it matters and leniently where it is known to vary.
//!
//! Numbers come as numbers, texts or empty texts; booleans as 0, 1, their texts or JSON's own; what is
//! not known is absent or null. A number where a list belongs is still refused, and no error repeats
//! a value, which might be a secret.

use proximity_commands::ports::HypervisorError;
use serde_json::{Map, Value};

/// A reply's data together with the call it answers, for error texts.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    call: &'static str,
    map: &'a Map<String, Value>,
}

pub(crate) fn malformed(call: &'static str, reason: impl Into<String>) -> HypervisorError {
    HypervisorError::Malformed { call, reason: reason.into() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The data as a list of objects.
pub(crate) fn rows<'a>(
    call: &'static str,
    data: &'a Value,
) -> Result<Vec<Row<'a>>, HypervisorError> {
    let list = data
        .as_array()
        .ok_or_else(|| malformed(call, format!("{} instead of a list", kind(data))))?;
    list.iter().map(|item| Row::of(call, item)).collect()
}

impl<'a> Row<'a> {
    /// The data as one object.
    pub(crate) fn of(call: &'static str, data: &'a Value) -> Result<Self, HypervisorError> {
        match data.as_object() {
            Some(map) => Ok(Self { call, map }),
            None => Err(malformed(call, format!("{} instead of an object", kind(data)))),
        }
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> HypervisorError {
        malformed(self.call, format!("`{key}` is {} instead of {wanted}", kind(value)))
    }

    fn missing(&self, key: &str) -> HypervisorError {
        malformed(self.call, format!("`{key}` is missing"))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// The value, unless it is absent or null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A text; numbers count as theirs.
    pub(crate) fn opt_text(&self, key: &str) -> Result<Option<String>, HypervisorError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, HypervisorError> {
        self.opt_text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text that parses, e.g. a node's name.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<T, HypervisorError> {
        self.text(key)?.parse().map_err(|_| malformed(self.call, format!("`{key}` is not valid")))
    }

    /// A number as a float; empty texts count as absent.
    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>, HypervisorError> {
        let number = match self.value(key) {
            None => None,
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) if text.trim().is_empty() => None,
            Some(value @ Value::String(text)) => {
                Some(text.trim().parse().map_err(|_| self.wrong(key, value, "a number"))?)
            }
            Some(other) => return Err(self.wrong(key, other, "a number")),
        };
        Ok(number.filter(|number| number.is_finite()))
    }

    /// A whole number; fractions are cut off.
    pub(crate) fn opt_i64(&self, key: &str) -> Result<Option<i64>, HypervisorError> {
        match self.value(key) {
            Some(Value::Number(number)) if number.is_i64() => Ok(number.as_i64()),
            Some(Value::String(text)) if text.trim().parse::<i64>().is_ok() => {
                Ok(text.trim().parse().ok())
            }
            _ => Ok(self.opt_f64(key)?.map(whole)),
        }
    }

    pub(crate) fn i64(&self, key: &str) -> Result<i64, HypervisorError> {
        self.opt_i64(key)?.ok_or_else(|| self.missing(key))
    }

    /// An amount; one below zero is none.
    pub(crate) fn opt_u64(&self, key: &str) -> Result<Option<u64>, HypervisorError> {
        Ok(self.opt_i64(key)?.and_then(|number| u64::try_from(number).ok()))
    }

    /// A flag; absent means no.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, HypervisorError> {
        Ok(self.opt_flag(key)?.unwrap_or(false))
    }

    pub(crate) fn opt_flag(&self, key: &str) -> Result<Option<bool>, HypervisorError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => match self.opt_text(key)?.as_deref() {
                Some("1") => Ok(Some(true)),
                Some("0" | "") => Ok(Some(false)),
                _ => Err(self.wrong(key, value, "0 or 1")),
            },
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "`as` saturates, which is right for a figure")]
fn whole(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_may_be_texts_fractions_empty_or_null() {
        let data = json!({"a": 5, "b": "6", "c": 7.9, "d": "", "e": null, "f": "8.5", "g": -3});
        let row = Row::of("GET /x", &data).unwrap();
        let read = |key| row.opt_i64(key).unwrap();
        assert_eq!(
            ["a", "b", "c", "d", "e", "f", "g", "h"].map(read),
            [Some(5), Some(6), Some(7), None, None, Some(8), Some(-3), None]
        );
        assert_eq!(row.opt_u64("g").unwrap(), None);
    }

    #[test]
    fn flags_have_four_spellings() {
        let data = json!({"a": 1, "b": "1", "c": true, "d": 0, "e": "0", "f": false, "g": "x"});
        let row = Row::of("GET /x", &data).unwrap();
        for on in ["a", "b", "c"] {
            assert!(row.flag(on).unwrap());
        }
        for off in ["d", "e", "f", "h"] {
            assert!(!row.flag(off).unwrap());
        }
        assert!(row.flag("g").is_err());
    }

    #[test]
    fn another_shape_is_refused_without_repeating_a_value() {
        let data = json!({"n": ["hunter2"], "t": {"x": "hunter2"}, "s": "hunter2"});
        let row = Row::of("GET /x", &data).unwrap();
        let errors = [
            row.opt_i64("n").unwrap_err(),
            row.opt_i64("s").unwrap_err(),
            row.text("t").unwrap_err(),
            row.text("absent").unwrap_err(),
            rows("GET /x", &data).err().unwrap(),
            rows("GET /x", &Value::Null).err().unwrap(),
        ];
        for error in errors {
            assert!(matches!(error, HypervisorError::Malformed { .. }));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
