//! Side rows: secrets, credentials, sessions and ownership, written in the append's own transaction.
//!
//! A table is declared once, as data; the two stores derive their SQL from the declaration, so that
//! a caller outside this crate never writes any.

/// A column's type, the same on both stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Integer,
    Bytes,
    Boolean,
}

/// One column of a side table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnType,
}

/// A side table as declared: its name, its primary key and all its columns.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub columns: &'static [Column],
}

/// A value of a column.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Boolean(bool),
}

/// Prints the kind only: side rows hold hashes and ciphertexts that belong in no log.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Text(_) => "Text(..)",
            Self::Integer(_) => "Integer(..)",
            Self::Bytes(_) => "Bytes(..)",
            Self::Boolean(_) => "Boolean(..)",
        })
    }
}

/// Column names with their values.
pub type Row = Vec<(&'static str, Value)>;

/// How many rows a guarded write must touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Any number.
    None,
    /// Exactly this many, else the whole append is refused as `SideStale`.
    Rows(u64),
}

/// One write to a side table.
#[derive(Debug, Clone, PartialEq)]
pub enum SideWrite {
    /// Fails with `SideConflict` when a unique constraint is violated.
    Insert { table: &'static Table, row: Row },
    /// Inserts, or replaces the row with the same primary key.
    Upsert { table: &'static Table, row: Row },
    /// Sets columns of the rows that equal `filter`.
    Update { table: &'static Table, set: Row, filter: Row, guard: Guard },
    /// Deletes the rows that equal `filter`.
    Delete { table: &'static Table, filter: Row, guard: Guard },
}
