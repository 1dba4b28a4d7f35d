//! `proximity audit replay`: the state as it was at a moment, and whether the log is what it should be.

use proximity_eventstore::Store;
use proximity_projections::replay::{self, Report, State, Until};
use serde_json::{Value, json};

use super::super::output::{Format, render};
use super::super::projections::progress;
use super::super::stdout::print;
use super::super::{Failure, Settings};
use super::moment::{known, moment};
use crate::http::events;
use crate::moment::rfc3339;
use crate::past::{self, Moment};
use crate::stores;

/// Up to when, of what, and whether to check it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A moment, e.g. 2030-01-31T12:00:00Z, or a position of the log; its end by default
    #[arg(long, value_name = "TIME|POSITION", value_parser = moment)]
    until: Option<Moment>,
    /// Only this application
    #[arg(long, value_name = "ID", conflicts_with = "check")]
    app: Option<String>,
    /// Judge every event, and hold the live read models against the log; what is wrong is listed,
    /// and the exit code is 6. Read models that only wait for the next start of a server are a note
    #[arg(long)]
    check: bool,
}

/// Prints the state, or what the check found.
pub async fn run(args: Args, config: &Settings, format: Format) -> Result<(), Failure> {
    match (&args.app, args.check) {
        (Some(app), _) => one(app, args.until, config, format).await,
        (None, true) => check(args.until, config, format).await,
        (None, false) => all(args.until, config, format).await,
    }
}

async fn until(store: &Store, moment: Option<Moment>) -> Result<Until, Failure> {
    known(store, "--until", moment).await?;
    let Some(moment) = moment else { return Ok(Until::Head) };
    Ok(Until::Position(moment.place(store).await.map_err(anyhow::Error::from)?))
}

const APPLICATIONS: [&str; 7] = ["id", "hostname", "status", "node", "vmid", "owner", "updated_at"];

async fn one(
    app: &str,
    at: Option<Moment>,
    config: &Settings,
    format: Format,
) -> Result<(), Failure> {
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    known(&store, "--until", at).await?;
    let at = at.unwrap_or(Moment::NOW).place(&store).await.map_err(anyhow::Error::from)?;
    let log = events::of_application(&store, app).await.map_err(anyhow::Error::from)?;
    let state = past::state(app, &log, at).map_err(anyhow::Error::msg)?;
    store.close().await;
    if state.is_null() {
        return Err(Failure::NoSuchThing(format!("there was no application {app} then")));
    }
    match format {
        Format::Json => print(&(pretty(&state)? + "\n"))?,
        _ => print(&render(&[state], &APPLICATIONS, format)?)?,
    }
    Ok(())
}

async fn all(at: Option<Moment>, config: &Settings, format: Format) -> Result<(), Failure> {
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    let until = until(&store, at).await?;
    let feed = std::sync::Arc::new(store.clone());
    let state = replay::state(feed, until, progress()).await.map_err(anyhow::Error::from)?;
    store.close().await;
    let stopped: Vec<String> =
        state.stopped.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    print_state(state, format)?;
    if stopped.is_empty() {
        Ok(())
    } else {
        Err(Failure::Found(format!(
            "the log cannot be folded to that moment: {}",
            stopped.join("; ")
        )))
    }
}

fn print_state(mut state: State, format: Format) -> Result<(), Failure> {
    let at = rfc3339(state.recorded_at);
    if format == Format::Json {
        let mut whole = json!({ "position": state.position, "recorded_at": at });
        for (name, rows) in state.rows {
            whole[name] = Value::Array(rows);
        }
        print(&(pretty(&whole)? + "\n"))?;
        return Ok(());
    }
    if format == Format::Table {
        let counts: Vec<String> =
            state.rows.iter().map(|(name, rows)| format!("{} {name}", rows.len())).collect();
        print(&format!("position {}, {at}: {}\n\n", state.position, counts.join(", ")))?;
    }
    let applications = state.rows.remove("applications").unwrap_or_default();
    print(&render(&applications, &APPLICATIONS, format)?)?;
    Ok(())
}

async fn check(at: Option<Moment>, config: &Settings, format: Format) -> Result<(), Failure> {
    let unavailable = |error: stores::Error| Failure::Unavailable(error.to_string());
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let until = until(&store, at).await?;
    let feed = std::sync::Arc::new(store.clone());
    let judged = async || replay::judge(feed, until, progress()).await;
    let was_served = stores::is_served(config).await.map_err(unavailable)?;
    let mut report = if at.is_some() {
        // The read models are those of now.
        judged().await.map_err(anyhow::Error::from)?
    } else if let Some(views) =
        stores::views_read_only(config, &store).await.map_err(unavailable)?
    {
        let checked = views.check(progress()).await;
        views.close().await;
        checked.map_err(anyhow::Error::from)?
    } else {
        let mut report = judged().await.map_err(anyhow::Error::from)?;
        report.waiting = replay::absent();
        report
    };
    // One that has only just started, or ended meanwhile, had no time to bring them up.
    if was_served && stores::is_served(config).await.map_err(unavailable)? {
        report.followed();
    }
    store.close().await;
    print_report(&report, format)?;
    match report.findings.total {
        0 => Ok(()),
        total => {
            let first = report.findings.first.first();
            let first = first.map(|one| format!("; first, {}: {}", one.subject, one.problem));
            let text = format!("{total} things are not as they should be");
            Err(Failure::Found(text + &first.unwrap_or_default()))
        }
    }
}

fn print_report(report: &Report, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            print(&(pretty(&serde_json::to_value(report).map_err(anyhow::Error::from)?)? + "\n"))?
        }
        Format::Table => {
            print(&format!(
                "{} events judged, {} rows of {} read models compared: {} findings\n",
                report.events,
                report.rows_compared,
                report.compared.len(),
                report.findings.total
            ))?;
            for (name, position) in &report.compared {
                print(&format!("  {name} up to position {position}\n"))?;
            }
            if !report.findings.first.is_empty() {
                let columns = ["position", "subject", "problem"];
                print(&format!("\n{}", render(&report.findings.first, &columns, format)?))?;
            }
            if report.waiting.total > 0 {
                print("\nnote: no server runs, and the next start brings these up:\n")?;
            }
            for one in &report.waiting.first {
                print(&format!("  {}: {}\n", one.subject, one.problem))?;
            }
        }
        Format::Ndjson | Format::Csv => {
            let columns = ["position", "subject", "problem"];
            print(&render(&report.findings.first, &columns, format)?)?;
        }
    }
    Ok(())
}

fn pretty(value: &Value) -> Result<String, anyhow::Error> {
    Ok(serde_json::to_string_pretty(value)?)
}
