//! `proximity audit diff`: what changed of an application between two moments, and by whom.

use super::super::output::{Format, render};
use super::super::stdout::print;
use super::super::{Failure, Settings};
use super::moment::{known, moment};
use crate::http::events::{self, Shown};
use crate::past::{self, Moment};
use crate::stores;

/// Which application, and between which moments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application
    #[arg(long, value_name = "ID")]
    app: String,
    /// A moment, e.g. 2030-01-31T12:00:00Z, or a position of the log
    #[arg(long, value_name = "TIME|POSITION", value_parser = moment)]
    from: Moment,
    /// The same; now by default
    #[arg(long, value_name = "TIME|POSITION", value_parser = moment)]
    to: Option<Moment>,
}

/// Prints it: as a table or CSV what is different, then who did what; as JSON both.
pub async fn run(args: Args, config: &Settings, format: Format) -> Result<(), Failure> {
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    known(&store, "--from", Some(args.from)).await?;
    known(&store, "--to", args.to).await?;
    let log = events::of_application(&store, &args.app).await.map_err(anyhow::Error::from)?;
    if !log.iter().any(|event| events::is_of(event, &args.app)) {
        return Err(Failure::NoSuchThing(format!("there was never an application {}", args.app)));
    }
    let to = args.to.unwrap_or(Moment::NOW);
    let places = past::places(&store, args.from, to).await.map_err(anyhow::Error::from)?;
    let places = places.ok_or_else(|| Failure::Usage("--from is later than --to".to_owned()))?;
    let show = |event: &_| Some(Shown::of(event));
    let diff = past::diff(&args.app, &log, places, show).map_err(anyhow::Error::msg)?;
    match format {
        Format::Json | Format::Ndjson => print(&render(&[diff], &[], format)?)?,
        Format::Csv => print(&render(&diff.changes, &CHANGES, format)?)?,
        Format::Table => {
            print(&render(&diff.by_field(), &CHANGES, format)?)?;
            let columns = ["position", "recorded_at", "actor", "command", "stream", "type"];
            print(&format!("\n{}", render(&diff.events, &columns, format)?))?;
        }
    }
    store.close().await;
    Ok(())
}

const CHANGES: [&str; 3] = ["pointer", "before", "after"];
