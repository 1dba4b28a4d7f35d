//! `proximity audit log`: events that fit, in their order.

use std::io::Write as _;

use anyhow::Context as _;
use proximity_eventstore::Search;

use super::super::output::{Format, render};
use super::super::{Failure, Settings};
use super::moment::{micros, within};
use crate::filters;
use crate::http::events::{Shown, around};
use crate::http::export::{Form, Pages};
use crate::stores;

/// Events printed as a table or one JSON array when nothing else is said: both are held in memory.
const SHOWN: u64 = 100;

const COLUMNS: [&str; 7] =
    ["position", "recorded_at", "actor", "stream", "sequence", "type", "payload"];

/// Which events are looked for; all that are named have to fit.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those after this position
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Only those up to this position
    #[arg(long)]
    until: Option<u64>,
    /// At most this many; 100 by default, as ndjson and csv all
    #[arg(long)]
    limit: Option<u64>,
    /// Only those of this name, or of this kind, e.g. lease.acquired or lease
    #[arg(long = "type", value_name = "TYPE", value_parser = filters::event_type)]
    kind: Option<String>,
    /// Only those of this actor, e.g. user/1
    #[arg(long, value_parser = filters::actor)]
    actor: Option<String>,
    /// Only those about things of this user, e.g. 7
    #[arg(long, value_name = "USER", value_parser = filters::owner)]
    owner: Option<String>,
    /// Only those of this application, and of what was done to it or for it
    #[arg(long, value_name = "ID", conflicts_with = "stream")]
    app: Option<String>,
    /// Only those that this request brought about at once
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Only those of this stream, e.g. application/nginx-0a1b2c3d
    #[arg(long, value_name = "KIND/ID", value_parser = stream)]
    stream: Option<(String, String)>,
    /// Not before this moment, e.g. 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = micros)]
    from: Option<i64>,
    /// Before this moment
    #[arg(long, value_name = "TIME", value_parser = micros)]
    to: Option<i64>,
}

/// Prints them.
pub async fn run(args: Args, config: &Settings, format: Format) -> Result<(), Failure> {
    let (search, limit) = (search(&args), args.limit);
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    within(&store, args.after).await?;
    let form = match format {
        Format::Ndjson => Some(Form::Ndjson),
        Format::Csv => Some(Form::Csv),
        Format::Json | Format::Table => None,
    };
    match form {
        Some(form) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&form.head()).context("the output is closed")?;
            let most = limit.unwrap_or(u64::MAX);
            let mut pages =
                Pages::begin(&store, &search, most).await.map_err(anyhow::Error::from)?;
            while let Some(events) = pages.next().await.map_err(anyhow::Error::from)? {
                let shown: Vec<Shown> = events.iter().map(Shown::of).collect();
                let lines = form.lines(&shown).map_err(anyhow::Error::from)?;
                match out.write_all(&lines) {
                    // A reader that has seen enough, as `head` does, is no failure.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                    written => written.context("the output is closed")?,
                }
            }
        }
        None => {
            let most = limit.unwrap_or(SHOWN);
            let mut pages =
                Pages::begin(&store, &search, most).await.map_err(anyhow::Error::from)?;
            let mut rows: Vec<Shown> = Vec::new();
            while let Some(events) = pages.next().await.map_err(anyhow::Error::from)? {
                rows.extend(events.iter().map(Shown::of));
            }
            print!("{}", render(&rows, &COLUMNS, format)?);
        }
    }
    store.close().await;
    Ok(())
}

fn stream(text: &str) -> Result<(String, String), String> {
    let (kind, id) = text
        .split_once('/')
        .filter(|(kind, id)| !kind.is_empty() && !id.is_empty())
        .ok_or("a stream is KIND/ID, e.g. application/nginx-0a1b2c3d")?;
    Ok((kind.to_owned(), id.to_owned()))
}

fn search(args: &Args) -> Search {
    let mut search = Search {
        after: args.after,
        until: args.until,
        actor: args.actor.clone(),
        owner: args.owner.clone(),
        request: args.request.clone(),
        stream: args.stream.clone(),
        from: args.from,
        to: args.to,
        ..args.app.as_deref().map(around).unwrap_or_default()
    };
    if let Some(kind) = &args.kind {
        search.of_type(kind);
    }
    search
}
