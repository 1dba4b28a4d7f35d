//! `proximity catalog`: what can be deployed, from the shell.

use proximity_catalog::{Catalog, Origin};
use serde_json::json;

use super::output::{Format, render};
use super::stdout::print;
use super::{Failure, Settings};

/// What can be asked of the catalog.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the applications, and the files that were left out
    List,
}

/// Reads the catalog as the server would.
pub fn run(command: &Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let Command::List = command;
    let origin = config.catalog_dir.clone().map_or(Origin::Embedded, Origin::Directory);
    let catalog = Catalog::load(&origin).map_err(anyhow::Error::from)?;
    let rows: Vec<_> = catalog
        .all()
        .iter()
        .map(|app| {
            let install = serde_json::to_value(&app.install).unwrap_or_default();
            json!({
                "id": app.id, "name": app.name, "version": app.version,
                "category": app.category, "install": install["kind"],
            })
        })
        .collect();
    print(&render(&rows, &["id", "name", "version", "category", "install"], format)?)?;
    match catalog.broken() {
        [] => Ok(()),
        broken => {
            let lines: Vec<_> = broken
                .iter()
                .map(|file| format!("{}: {}: {}", file.file, file.field, file.reason))
                .collect();
            Err(Failure::Found(format!("files left out:\n{}", lines.join("\n"))))
        }
    }
}
