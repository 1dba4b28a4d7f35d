//! `proximity projections`: how the read models stand, built anew, held against the log.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use proximity_projections::{BuildProgress, OnProgress};

use super::output::{Format, render};
use super::{Failure, Settings, readers};

/// What can be done with read models.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List them with their positions
    List,
    /// Build them anew beside the live ones and switch; all of them when none is named
    Rebuild {
        /// Their names
        names: Vec<String>,
    },
    /// Fold the log anew and compare row by row; all of them when none is named
    Verify {
        /// Their names
        names: Vec<String>,
    },
}

/// Works on the views, beside a running server or alone.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let (store, views) = readers(config).await?;
    let all: Vec<String> = {
        let status = views.status().await.map_err(anyhow::Error::from)?;
        if matches!(command, Command::List) {
            let columns = ["name", "version", "position", "lag", "state", "problem"];
            print!("{}", render(&status, &columns, format)?);
            return Ok(());
        }
        status.into_iter().map(|one| one.name).collect()
    };
    let known = |names: Vec<String>| -> Result<Vec<String>, Failure> {
        match names.iter().find(|name| !all.contains(name)) {
            Some(name) => Err(Failure::NoSuchThing(format!("there is no projection {name}"))),
            None if names.is_empty() => Ok(all.clone()),
            None => Ok(names),
        }
    };
    match command {
        Command::List => {}
        Command::Rebuild { names } => {
            let names = known(names)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            views.rebuild(&names, progress()).await.map_err(anyhow::Error::from)?;
            let status = views.status().await.map_err(anyhow::Error::from)?;
            print!("{}", render(&status, &["name", "version", "position", "state"], format)?);
        }
        Command::Verify { names } => {
            let mut verdicts = Vec::new();
            for name in known(names)? {
                verdicts.push(views.verify(&name, progress()).await.map_err(anyhow::Error::from)?);
            }
            let columns = ["name", "position", "rows_compared", "rows_different"];
            print!("{}", render(&verdicts, &columns, format)?);
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

/// A line that is written over and over, on a terminal only.
fn progress() -> OnProgress {
    let on_terminal = std::io::stderr().is_terminal();
    Arc::new(move |progress: BuildProgress| {
        if on_terminal {
            let line = format!(
                "\r{} of {} events, {:.0}/s ",
                progress.events_done,
                progress.events_total,
                progress.rate()
            );
            // Nobody is harmed when a progress line does not arrive.
            if std::io::stderr().write_all(line.as_bytes()).is_err() {}
        }
    })
}
