//! `proximity operations`: what is being carried out, from the shell.

use proximity_projections::operations::OperationFilter;

use super::output::{Format, render};
use super::stdout::print;
use super::{Failure, Settings, readers};

/// What can be asked about operations.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List operations, newest first
    List {
        /// Only those in this state, e.g. stuck
        #[arg(long)]
        state: Option<String>,
        /// Only those of this application
        #[arg(long)]
        app: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one operation with its steps
    Show {
        /// Its id
        id: String,
    },
}

/// Reads the views as they are.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let (store, views) = readers(config).await?;
    let printed = match command {
        Command::List { state, app, limit } => {
            let filter = OperationFilter { owner: None, state, app };
            let page = views.operations(&filter, 1, limit).await.map_err(anyhow::Error::from)?;
            let columns = ["id", "app", "kind", "state", "step", "attempt", "created_at", "reason"];
            render(&page.items, &columns, format)?
        }
        Command::Show { id } => {
            let found = views.operation(&id).await.map_err(anyhow::Error::from)?;
            let operation =
                found.ok_or_else(|| Failure::NoSuchThing(format!("there is no operation {id}")))?;
            match format {
                Format::Table | Format::Csv => {
                    let columns = ["name", "state", "attempts", "duration_ms", "failure", "found"];
                    render(&operation.steps, &columns, format)?
                }
                Format::Json | Format::Ndjson => render(&[operation], &[], format)?,
            }
        }
    };
    print(&printed)?;
    views.close().await;
    store.close().await;
    Ok(())
}
