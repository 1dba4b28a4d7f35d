//! `proximity audit log`: events that fit, in their order.

use std::io::Write as _;

use proximity_eventstore::{Search, Store};

use super::super::output::{Format, render};
use super::super::{Failure, Settings, stdout};
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
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
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
    #[arg(long, value_name = "ID", value_parser = filters::request)]
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

/// Prints them; nothing is left out without a word.
pub async fn run(args: Args, config: &Settings, format: Format) -> Result<(), Failure> {
    filters::positions(args.after, args.until)
        .map_err(|why| Failure::Usage(format!("--until: {why}")))?;
    filters::moments(args.from, args.to).map_err(|why| Failure::Usage(format!("--to: {why}")))?;
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    within(&store, "--after", args.after).await?;
    known(&store, &args).await?;
    let printed = match format {
        Format::Ndjson => stream_out(&store, &args, Form::Ndjson).await,
        Format::Csv => stream_out(&store, &args, Form::Csv).await,
        Format::Json | Format::Table => first(&store, &args, format).await,
    };
    store.close().await;
    printed
}

/// Refuses what never was: an empty answer would look like a log in which nothing was done.
async fn known(store: &Store, args: &Args) -> Result<(), Failure> {
    let of = |stream: (&str, &str)| Search {
        stream: Some((stream.0.to_owned(), stream.1.to_owned())),
        ..Search::default()
    };
    let mut asked = Vec::new();
    if let Some(app) = &args.app {
        asked.push((of(("application", app)), format!("there was never an application {app}")));
    }
    if let Some((kind, id)) = &args.stream {
        asked.push((of((kind, id)), format!("there was never a stream {kind}/{id}")));
    }
    if let Some(request) = &args.request {
        let search = Search { request: Some(request.clone()), ..Search::default() };
        asked.push((search, format!("the log knows nothing of a request {request}")));
    }
    for (search, otherwise) in asked {
        let found = store.search(&search, 1).await.map_err(anyhow::Error::from)?;
        if found.events.is_empty() {
            return Err(Failure::NoSuchThing(otherwise));
        }
    }
    Ok(())
}

/// All of them, page by page, for as long as somebody reads.
async fn stream_out(store: &Store, args: &Args, form: Form) -> Result<(), Failure> {
    let most = args.limit.unwrap_or(u64::MAX);
    let mut pages = Pages::begin(store, &search(args), most).await.map_err(anyhow::Error::from)?;
    let mut is_read = stdout::write(&form.head())?;
    while is_read && let Some(events) = pages.next().await.map_err(anyhow::Error::from)? {
        let shown: Vec<Shown> = events.iter().map(Shown::of).collect();
        is_read = stdout::write(&form.lines(&shown).map_err(anyhow::Error::from)?)?;
    }
    Ok(())
}

/// The first of them, and a word when there are more.
async fn first(store: &Store, args: &Args, format: Format) -> Result<(), Failure> {
    let most = args.limit.unwrap_or(SHOWN);
    let mut pages = Pages::begin(store, &search(args), most.saturating_add(1))
        .await
        .map_err(anyhow::Error::from)?;
    let mut rows: Vec<Shown> = Vec::new();
    while let Some(events) = pages.next().await.map_err(anyhow::Error::from)? {
        rows.extend(events.iter().map(Shown::of));
    }
    let shown = usize::try_from(most).unwrap_or(usize::MAX).min(rows.len());
    let more = shown < rows.len();
    rows.truncate(shown);
    stdout::print(&render(&rows, &COLUMNS, format)?)?;
    if more {
        let last = rows.last().map_or(args.after, |row| row.position);
        let text = format!(
            "there are more than these {shown}: go on with --after {last}, raise --limit, or have \
             all of them with -o ndjson\n"
        );
        std::io::stderr().write_all(text.as_bytes()).map_err(anyhow::Error::from)?;
    }
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
