//! What was done from the shell and leaves nothing in the log by itself, written down there: by the
//! server that holds the embedded store, or directly.

use std::io::Write as _;
use std::path::Path;

use proximity_commands::policy::Admin;
use proximity_commands::{Actor, admin_actions};
use proximity_eventstore::Store;
use serde::{Deserialize, Serialize};

use super::{Failure, Settings};
use crate::app::sealing::close_noted;
use crate::control::{self, Request};
use crate::{shell, stores};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    ExportRecovery,
    CreateBackup,
    Rebuild,
    SwitchBack,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::ExportRecovery => "keys export-recovery",
            Self::CreateBackup => "backup create",
            Self::Rebuild => "projections rebuild",
            Self::SwitchBack => "projections switch-back",
        }
    }

    /// Stores that it is done, to what.
    pub async fn store(
        self,
        store: &Store,
        by: &Actor,
        to: &str,
    ) -> Result<(), proximity_commands::Error> {
        let shell = Admin::prove(by)?;
        admin_actions::note(store, &shell, self.name(), to).await
    }
}

/// Writes it down, before it is done where something leaves the machine with it. A log that cannot be
/// written keeps nobody from a backup: then it is said here.
pub async fn note(config: &Settings, act: Act, to: &str) -> Result<(), Failure> {
    let Err(why) = try_note(config, act, to).await else { return Ok(()) };
    let text = format!("this is not in the log, which cannot be written: {why:#}\n");
    Ok(std::io::stderr().write_all(text.as_bytes()).map_err(anyhow::Error::from)?)
}

async fn try_note(config: &Settings, act: Act, to: &str) -> anyhow::Result<()> {
    if let Some(answer) = control::ask(config, &Request::Note { act, to: to.to_owned() }).await? {
        return answer.map(drop).map_err(anyhow::Error::msg);
    }
    // Not brought up to date on the way: a backup is made before that.
    let store = stores::open_unchanged(config).await?;
    let noted = act.store(&store, &shell::actor(), to).await;
    // Before a backup reads it.
    close_noted(config, store).await;
    Ok(noted?)
}

/// A file's whole path: the log outlives the directory in which somebody stood.
pub fn whole(file: &Path) -> String {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}
