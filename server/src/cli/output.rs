//! Prints rows as a table for people, or as JSON, NDJSON or CSV for programs.

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// The forms of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON array
    Json,
    /// One JSON object for each line
    Ndjson,
    /// Comma-separated values with a head
    Csv,
}

/// Renders rows; `columns` are the fields that table and CSV show, in order.
pub fn render<T: Serialize>(
    rows: &[T],
    columns: &[&str],
    format: Format,
) -> anyhow::Result<String> {
    let rows: Vec<Value> = rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let cells = |row: &Value| -> Vec<String> { columns.iter().map(|c| cell(&row[*c])).collect() };
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(&rows)? + "\n"),
        Format::Ndjson => rows.iter().try_fold(String::new(), |mut text, row| {
            text.push_str(&serde_json::to_string(row)?);
            text.push('\n');
            Ok(text)
        }),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(columns)?;
            for row in &rows {
                writer.write_record(cells(row))?;
            }
            let bytes = writer.into_inner().context("the CSV could not be finished")?;
            Ok(String::from_utf8(bytes)?)
        }
        Format::Table => {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::NOTHING);
            table.set_header(columns.iter().map(|column| column.to_uppercase()));
            for row in &rows {
                table.add_row(cells(row));
            }
            let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
            Ok(lines.join("\n") + "\n")
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_four_forms_show_the_same_rows() {
        let rows =
            [serde_json::json!({"a": 1, "b": "x, y"}), serde_json::json!({"a": null, "b": "z"})];
        let show = |format| render(&rows, &["a", "b"], format).unwrap();
        assert_eq!(show(Format::Csv), "a,b\n1,\"x, y\"\n,z\n");
        assert_eq!(show(Format::Ndjson), "{\"a\":1,\"b\":\"x, y\"}\n{\"a\":null,\"b\":\"z\"}\n");
        let parsed: Vec<Value> = serde_json::from_str(&show(Format::Json)).unwrap();
        assert_eq!(parsed, rows);
        let table = show(Format::Table);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("x, y"), "{table}");
    }
}
