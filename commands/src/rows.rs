//! Reads the columns of side rows, and writes values into them.

use proximity_eventstore::{Row, Value};

use crate::Error;

/// A row as read from a side table; a column that is missing or of another type is a defect.
pub(crate) struct Columns(pub Row);

impl Columns {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(column, _)| *column == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<&str, Error> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, Error> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn integer(&self, name: &'static str) -> Result<i64, Error> {
        match self.get(name) {
            Some(Value::Integer(number)) => Ok(*number),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn optional_integer(&self, name: &'static str) -> Result<Option<i64>, Error> {
        match self.get(name) {
            Some(Value::Integer(number)) => Ok(Some(*number)),
            Some(Value::Null) => Ok(None),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn boolean(&self, name: &'static str) -> Result<bool, Error> {
        match self.get(name) {
            Some(Value::Boolean(yes)) => Ok(*yes),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<&[u8], Error> {
        match self.get(name) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(malformed(name)),
        }
    }

    pub(crate) fn optional_bytes(&self, name: &'static str) -> Result<Option<&[u8]>, Error> {
        match self.get(name) {
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Value::Null) => Ok(None),
            _ => Err(malformed(name)),
        }
    }

    /// A text column that parses as a value of ours.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Error> {
        self.text(name)?.parse().map_err(|_| malformed(name))
    }
}

fn malformed(column: &'static str) -> Error {
    Error::internal("a side row is malformed", format!("column {column}"))
}

/// A text value.
pub(crate) fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

/// A text value or null.
pub(crate) fn optional(value: Option<impl ToString>) -> Value {
    value.map_or(Value::Null, |value| Value::Text(value.to_string()))
}

/// A read of the store failed: nothing of it is the caller's business.
pub(crate) fn unreadable(error: proximity_eventstore::Error) -> Error {
    Error::internal("the store cannot be read", error)
}
