//! `proximity projections`: how the read models stand, built anew, switched back, held against the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use proximity_projections::{BuildProgress, Error, OnProgress, Pace, Rebuild, Status};
use serde_json::json;

use super::noted::{Act, note};
use super::output::{Format, render};
use super::progress::Bar;
use super::stdout::print;
use super::{Failure, Settings, builders, opened, readers};
use crate::stores;

/// What can be done with read models.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List them with their positions, and the generations that can be switched back to
    List,
    /// Build them anew beside the live ones in one pass over the log, and switch; all of them when none
    /// is named. A rebuild that was killed is gone on with
    Rebuild {
        /// Their names
        names: Vec<String>,
        /// Begin at the first event, whatever a killed rebuild left
        #[arg(long)]
        anew: bool,
        /// Events after which what was built so far is kept; every five seconds it is anyway
        #[arg(long, value_name = "EVENTS", default_value_t = Rebuild::default().checkpoint,
              value_parser = clap::value_parser!(u64).range(1..))]
        checkpoint: u64,
    },
    /// Put the previous generation in the place of the live one, which is kept in turn
    SwitchBack {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove the previous generations, which take as much room as the live ones; all when none is named
    DropPrevious {
        /// Their names
        names: Vec<String>,
    },
    /// Fold the log anew and compare row by row; all of them when none is named
    Verify {
        /// Their names
        names: Vec<String>,
    },
}

const LISTED: [&str; 8] = [
    "name",
    "version",
    "position",
    "lag",
    "state",
    "previous_version",
    "previous_position",
    "problem",
];

/// Works on the views, beside a running server or alone. What was done is noted after it was: the event says
/// so, and what is refused has changed no row that is read. A kill between a switch and its note, or a
/// rebuild of several of which one fails at its switch, leaves the note out and nothing else: the rows are
/// of the same log before and after.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let (store, views) = match &command {
        Command::List => match opened(config).await? {
            (store, Some(views)) => (store, views),
            // None is no failure: a server that starts builds them.
            (store, None) => {
                store.close().await;
                return print(&render::<Status>(&[], &LISTED, format)?);
            }
        },
        Command::Verify { .. } => readers(config).await?,
        Command::Rebuild { .. } | Command::SwitchBack { .. } | Command::DropPrevious { .. } => {
            builders(config).await?
        }
    };
    let status = views.status().await.map_err(anyhow::Error::from)?;
    let known = |names: Vec<String>| -> Result<Vec<String>, Failure> {
        let all = || status.iter().map(|one| one.name.clone());
        match names.iter().find(|name| !all().any(|known| known == **name)) {
            Some(name) => Err(Failure::NoSuchThing(format!("there is no projection {name}"))),
            None if names.is_empty() => Ok(all().collect()),
            None => Ok(distinct(names)),
        }
    };
    let switched = ["name", "version", "position", "from"];
    match command {
        Command::List => {
            let rows: Vec<_> = status.iter().map(listed).collect::<Result<_, _>>()?;
            print(&render(&rows, &LISTED, format)?)?;
        }
        Command::Rebuild { names, anew, checkpoint } => {
            let names = known(names)?;
            let unavailable = |error: stores::Error| Failure::Unavailable(error.to_string());
            let is_served = stores::is_served(config).await.map_err(unavailable)?;
            let pace = if is_served { Pace::Beside } else { Pace::Alone };
            let options = Rebuild { anew, checkpoint, pace };
            let rebuilt = views.rebuild_as(&borrowed(&names), options, progress()).await;
            let rebuilt = rebuilt.map_err(failure)?;
            note(config, Act::Rebuild, &names.join(" ")).await?;
            print(&render(&rebuilt, &switched, format)?)?;
        }
        Command::SwitchBack { names } => {
            // One by one: what was switched is told and noted, also when the next one cannot be.
            let mut back = Vec::new();
            let mut refused = None;
            for name in known(names)? {
                match views.switch_back(&[&name], progress()).await {
                    Ok(one) => back.extend(one),
                    Err(error) => {
                        refused = Some(failure(error));
                        break;
                    }
                }
            }
            if !back.is_empty() {
                let names: Vec<&str> = back.iter().map(|one| one.name.as_str()).collect();
                note(config, Act::SwitchBack, &names.join(" ")).await?;
                print(&render(&back, &switched, format)?)?;
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
        }
        Command::DropPrevious { names } => {
            views.drop_previous(&borrowed(&known(names)?)).await.map_err(failure)?;
        }
        Command::Verify { names } => {
            let mut verdicts = Vec::new();
            for name in known(names)? {
                verdicts.push(views.verify(&name, progress()).await.map_err(failure)?);
            }
            let columns = ["name", "position", "rows_compared", "rows_different"];
            print(&render(&verdicts, &columns, format)?)?;
            let head = store.head().await.map_err(anyhow::Error::from)?;
            // Of the log that there is, none of it was compared.
            if let Some(empty) = verdicts.iter().find(|one| one.position == 0 && head > 0) {
                let text =
                    format!("{} holds nothing of {head} events; `rebuild` mends it", empty.name);
                return Err(Failure::Found(text));
            }
            let wrong: u64 = verdicts.iter().map(|verdict| verdict.rows_different).sum();
            if wrong > 0 {
                let text = format!("{wrong} rows are not what the log says; `rebuild` mends them");
                return Err(Failure::Found(text));
            }
        }
    }
    views.close().await;
    store.close().await;
    Ok(())
}

/// A row of the list; the previous generation in columns of its own.
fn listed(status: &Status) -> anyhow::Result<serde_json::Value> {
    let mut row = serde_json::to_value(status)?;
    row["previous_version"] = json!(status.previous.map(|previous| previous.version));
    row["previous_position"] = json!(status.previous.map(|previous| previous.position));
    Ok(row)
}

/// Each once, in the order of the first.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn failure(error: Error) -> Failure {
    match error {
        none @ Error::NoPrevious { .. } => Failure::NoSuchThing(none.to_string()),
        ahead @ Error::Ahead { .. } => Failure::Found(ahead.to_string()),
        other => Failure::Failed(other.into()),
    }
}

/// A line that is written over and over, on a terminal only.
pub(super) fn progress() -> OnProgress {
    let bar = Bar::new();
    Arc::new(move |progress: BuildProgress| {
        let BuildProgress { events_done, events_total, events_before, elapsed } = progress;
        bar.show_from(events_before, events_done, events_total, elapsed);
    })
}
