//! Turns declared tables and side writes into SQL, the two dialects side by side.

use std::fmt::Write as _;

use crate::append::AppendError;
use crate::side::{Column, ColumnType, Guard, Row, SideWrite, Table, Value};

/// Which SQL is wanted.
///
/// SQLite binds each value. PostgreSQL runs side writes inside `proximity_append`, where only the
/// text varies: there `$1` is one JSON object, `{"set": {…}, "where": {…}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl SideWrite {
    pub(crate) fn table(&self) -> &'static Table {
        match self {
            Self::Insert { table, .. }
            | Self::Upsert { table, .. }
            | Self::Update { table, .. }
            | Self::Delete { table, .. } => table,
        }
    }

    /// The columns that are written.
    pub(crate) fn set(&self) -> &[(&'static str, Value)] {
        match self {
            Self::Insert { row, .. } | Self::Upsert { row, .. } => row,
            Self::Update { set, .. } => set,
            Self::Delete { .. } => &[],
        }
    }

    /// The columns that choose the rows.
    pub(crate) fn filter(&self) -> &[(&'static str, Value)] {
        match self {
            Self::Insert { .. } | Self::Upsert { .. } => &[],
            Self::Update { filter, .. } | Self::Delete { filter, .. } => filter,
        }
    }

    /// How many rows have to be touched.
    pub(crate) fn expected(&self) -> Option<u64> {
        match self {
            Self::Insert { .. } => Some(1),
            Self::Update { guard: Guard::Rows(n), .. }
            | Self::Delete { guard: Guard::Rows(n), .. } => Some(*n),
            _ => None,
        }
    }

    /// Refuses what no declaration covers, before it can become SQL.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        check(self.table(), self.set())?;
        check(self.table(), self.filter())?;
        if self.set().is_empty() && !matches!(self, Self::Delete { .. }) {
            return Err(AppendError::Invalid {
                reason: format!("a write to {} sets nothing", self.table().name),
            });
        }
        Ok(())
    }

    /// The statement; its parameters are `set()` and then the values of `filter()` that are not null.
    pub(crate) fn sql(&self, dialect: Dialect) -> String {
        let table = self.table().name;
        let mut sql = String::with_capacity(160);
        match self {
            Self::Insert { row, .. } | Self::Upsert { row, .. } => {
                let columns = list(row.iter().map(|(name, _)| *name), "");
                match dialect {
                    Dialect::Sqlite => {
                        let places =
                            (1..=row.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
                        push(
                            &mut sql,
                            format_args!("insert into \"{table}\" ({columns}) values ({places})"),
                        );
                    }
                    Dialect::Postgres => {
                        let picked = list(row.iter().map(|(name, _)| *name), "n.");
                        push(
                            &mut sql,
                            format_args!(
                                "insert into \"{table}\" ({columns}) select {picked} \
                                 from jsonb_populate_record(null::\"{table}\", $1->'set') n"
                            ),
                        );
                    }
                }
                if let Self::Upsert { table, row } = self {
                    push(
                        &mut sql,
                        format_args!(" on conflict ({})", list(table.key.iter().copied(), "")),
                    );
                    let rest: Vec<String> = row
                        .iter()
                        .filter(|(name, _)| !table.key.contains(name))
                        .map(|(name, _)| format!("\"{name}\" = excluded.\"{name}\""))
                        .collect();
                    if rest.is_empty() {
                        sql.push_str(" do nothing");
                    } else {
                        push(&mut sql, format_args!(" do update set {}", rest.join(", ")));
                    }
                }
            }
            Self::Update { set, filter, .. } => {
                push(&mut sql, format_args!("update \"{table}\" as t set "));
                for (n, (name, _)) in set.iter().enumerate() {
                    let comma = if n == 0 { "" } else { ", " };
                    match dialect {
                        Dialect::Sqlite => {
                            push(&mut sql, format_args!("{comma}\"{name}\" = ?{}", n + 1));
                        }
                        Dialect::Postgres => {
                            push(&mut sql, format_args!("{comma}\"{name}\" = n.\"{name}\""));
                        }
                    }
                }
                if dialect == Dialect::Postgres {
                    push(
                        &mut sql,
                        format_args!(
                            " from jsonb_populate_record(null::\"{table}\", $1->'set') n, \
                             jsonb_populate_record(null::\"{table}\", $1->'where') w"
                        ),
                    );
                }
                push_filter(&mut sql, dialect, filter, set.len());
            }
            Self::Delete { filter, .. } => {
                push(&mut sql, format_args!("delete from \"{table}\" as t"));
                if dialect == Dialect::Postgres {
                    push(
                        &mut sql,
                        format_args!(
                            " using jsonb_populate_record(null::\"{table}\", $1->'where') w"
                        ),
                    );
                }
                push_filter(&mut sql, dialect, filter, 0);
            }
        }
        sql
    }

    /// PostgreSQL's one parameter.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "set": object(self.set()), "where": object(self.filter()) })
    }
}

/// How many rows equal `filter`; typed parameters in both dialects.
pub(crate) fn count(dialect: Dialect, table: &Table, filter: &Row) -> String {
    let mut sql = format!("select count(*) from \"{}\" as t where true", table.name);
    push_equal(&mut sql, dialect, filter);
    sql
}

/// Returns how many parameters it needs.
fn push_equal(sql: &mut String, dialect: Dialect, filter: &Row) -> usize {
    let mut place = 0;
    for (name, value) in filter {
        if *value == Value::Null {
            push(sql, format_args!(" and t.\"{name}\" is null"));
        } else {
            place += 1;
            let mark = if dialect == Dialect::Sqlite { '?' } else { '$' };
            push(sql, format_args!(" and t.\"{name}\" = {mark}{place}"));
        }
    }
    place
}

/// `select` of all columns of the rows that equal `filter`, ordered by key; typed parameters in both dialects.
pub(crate) fn select(dialect: Dialect, table: &Table, filter: &Row) -> String {
    let columns = list(table.columns.iter().map(|c| c.name), "t.");
    let mut sql = format!("select {columns} from \"{}\" as t where true", table.name);
    let place = push_equal(&mut sql, dialect, filter);
    let mark = if dialect == Dialect::Sqlite { '?' } else { '$' };
    push(
        &mut sql,
        format_args!(
            " order by {} limit {mark}{}",
            list(table.key.iter().copied(), "t."),
            place + 1
        ),
    );
    sql
}

/// Refuses a column that is not declared, or a value of another type.
pub(crate) fn check(
    table: &'static Table,
    row: &[(&'static str, Value)],
) -> Result<(), AppendError> {
    for (name, value) in row {
        let Some(column) = table.columns.iter().find(|c| c.name == *name) else {
            return Err(AppendError::Invalid {
                reason: format!("{} has no column {name}", table.name),
            });
        };
        if !fits(column, value) {
            return Err(AppendError::Invalid {
                reason: format!("{}.{name} is of another type", table.name),
            });
        }
    }
    Ok(())
}

fn fits(column: &Column, value: &Value) -> bool {
    matches!(
        (column.kind, value),
        (_, Value::Null)
            | (ColumnType::Text, Value::Text(_))
            | (ColumnType::Integer, Value::Integer(_))
            | (ColumnType::Bytes, Value::Bytes(_))
            | (ColumnType::Boolean, Value::Boolean(_))
    )
}

fn push_filter(
    sql: &mut String,
    dialect: Dialect,
    filter: &[(&'static str, Value)],
    mut place: usize,
) {
    sql.push_str(" where true");
    for (name, value) in filter {
        if *value == Value::Null {
            push(sql, format_args!(" and t.\"{name}\" is null"));
        } else if dialect == Dialect::Sqlite {
            place += 1;
            push(sql, format_args!(" and t.\"{name}\" = ?{place}"));
        } else {
            push(sql, format_args!(" and t.\"{name}\" = w.\"{name}\""));
        }
    }
}

fn list(names: impl Iterator<Item = &'static str>, prefix: &str) -> String {
    names.map(|name| format!("{prefix}\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn push(sql: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if sql.write_fmt(text).is_err() {
        unreachable!("a String accepts every write");
    }
}

pub(crate) fn object(row: &[(&'static str, Value)]) -> serde_json::Value {
    let members = row.iter().map(|(name, value)| {
        let value = match value {
            Value::Null => serde_json::Value::Null,
            Value::Text(text) => serde_json::Value::from(text.as_str()),
            Value::Integer(number) => serde_json::Value::from(*number),
            Value::Boolean(yes) => serde_json::Value::from(*yes),
            Value::Bytes(bytes) => {
                let mut hex = String::with_capacity(2 + bytes.len() * 2);
                hex.push_str("\\x");
                for byte in bytes {
                    push(&mut hex, format_args!("{byte:02x}"));
                }
                serde_json::Value::from(hex)
            }
        };
        ((*name).to_owned(), value)
    });
    serde_json::Value::Object(members.collect())
}
