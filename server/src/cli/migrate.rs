//! `proximity migrate`: brings the schema up to date, in the role that owns it.

use serde_json::json;

use super::output::{Format, render};
use super::stdout::print;
use super::{Failure, Settings};
use crate::stores;

/// Applies what is missing and says which versions that were.
pub async fn run(config: &Settings, format: Format) -> Result<(), Failure> {
    config.ensure_data()?;
    let report =
        stores::migrate(config).await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    let rows: Vec<_> = report.applied.iter().map(|version| json!({ "applied": version })).collect();
    if rows.is_empty() && format == Format::Table {
        print("the schema is up to date\n")?;
    } else {
        print(&render(&rows, &["applied"], format)?)?;
    }
    Ok(())
}
