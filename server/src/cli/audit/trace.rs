//! `proximity audit trace`: what one request brought about, as a tree.

use std::fmt::Write as _;

use proximity_commands::Actor;

use super::super::output::{Format, render};
use super::super::stdout::print;
use super::super::{Failure, Settings};
use crate::filters;
use crate::http::events::Shown;
use crate::stores;
use crate::trace::{self, Trace, TracedOperation};

/// Which request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, as its answer's header X-Request-Id told it
    #[arg(value_parser = filters::request)]
    request: String,
}

/// Prints it; as a table, indented by what follows from what.
pub async fn run(args: Args, config: &Settings, format: Format) -> Result<(), Failure> {
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    let found = trace::of(&store, &args.request, &Actor::system("cli")).await;
    store.close().await;
    let trace = found.map_err(anyhow::Error::from)?.ok_or_else(|| {
        Failure::NoSuchThing(format!("the log knows nothing of a request {}", args.request))
    })?;
    match format {
        Format::Table => print(&tree(&trace).map_err(anyhow::Error::from)?)?,
        Format::Json | Format::Ndjson | Format::Csv => {
            let columns = ["request", "actor", "recorded_at"];
            print(&render(&[trace], &columns, format)?)?;
        }
    }
    Ok(())
}

fn tree(trace: &Trace) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let actor = trace.actor.as_deref().unwrap_or("nobody");
    writeln!(out, "request {} by {actor} at {}", trace.request, trace.recorded_at)?;
    for first in &trace.repeats {
        writeln!(out, "  repeats request {first}")?;
    }
    for command in &trace.commands {
        writeln!(out, "  command {}", command.command)?;
        events(&mut out, 4, &command.events)?;
        for one in &command.operations {
            operation(&mut out, one)?;
        }
    }
    Ok(out)
}

fn events(out: &mut String, indent: usize, events: &[Shown]) -> std::fmt::Result {
    for event in events {
        writeln!(
            out,
            "{:indent$}event {} {} {}",
            "", event.position, event.event_type, event.stream
        )?;
    }
    Ok(())
}

fn operation(out: &mut String, operation: &TracedOperation) -> std::fmt::Result {
    let TracedOperation { id, app, kind, state, .. } = operation;
    writeln!(out, "    operation {id}: {kind} of {app}, {state}")?;
    for step in &operation.steps {
        let times =
            if step.attempts == 1 { "once".to_owned() } else { format!("{} times", step.attempts) };
        writeln!(out, "      {} {}: {}, tried {times}", step.direction, step.step, step.state)?;
        if let Some(failure) = &step.failure {
            writeln!(out, "        failed: {failure}")?;
        }
        for call in &step.calls {
            let only = call.only.map(|only| format!(" ({only})")).unwrap_or_default();
            writeln!(out, "        call {}{only}", call.call)?;
        }
        for task in &step.tasks {
            let outcome = task.outcome.as_deref().unwrap_or("goes on");
            writeln!(out, "        task {}: {outcome}", task.upid)?;
            for line in &task.log {
                writeln!(out, "          | {line}")?;
            }
        }
    }
    events(out, 6, &operation.events)
}
