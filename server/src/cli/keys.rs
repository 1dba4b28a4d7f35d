//! `proximity keys`: the generations of the master key, a new one, the old one's end, and a copy for
//! another machine.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use proximity_commands::Secret;
use proximity_commands::dispatch::load;
use proximity_commands::keys::{Keyring, Recovery};
use proximity_commands::secrets::{Rotated, Secrets};
use proximity_domain::keys::{Keys, STREAM};
use proximity_eventstore::Store;
use serde_json::{Value, json};

use super::noted::{Act, note, whole};
use super::output::{Format, render};
use super::stdout::{print, print_once};
use super::{Failure, Settings, must_exist};
use crate::app::sealing::close_sealed;
use crate::app::{self, installation};
use crate::control::{self, Request};
use crate::moment::rfc3339;
use crate::{shell, stores};

/// What can be done with the master keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the generations: which one seals, how many secrets are under each, since when
    Status,
    /// Replace the master key while everything goes on, or finish a replacement that was cut off
    Rotate {
        /// Seconds that other servers of the database are given to take the new key up
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
        grace: u64,
        /// Destroy the replaced keys as well: what only they open (old backups) is gone for good
        #[arg(long)]
        destroy: bool,
    },
    /// Destroy a replaced generation: what only it opens (old backups) is gone for good
    Destroy {
        /// Its name, as `keys status` shows it
        generation: String,
    },
    /// Write the keys to a file, sealed under a code that is shown once
    ExportRecovery {
        /// The file to write; it must not exist
        file: PathBuf,
        /// Read a code of your own, of 16 characters or more, from the standard input stream
        #[arg(long)]
        code_stdin: bool,
    },
    /// Bring the keys back from such a file, on a machine that has none
    ImportRecovery {
        /// The file
        file: PathBuf,
    },
}

/// Through the running server where one holds the embedded store, else directly.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    match command {
        Command::Status => status(config, format).await,
        Command::Rotate { grace, destroy } => rotate(config, grace, destroy, format).await,
        Command::Destroy { generation } => {
            must_be_known(config, &generation).await?;
            destroy_one(config, &generation).await?;
            let row = json!({ "generation": generation, "state": "destroyed" });
            print(&render(&[row], &["generation", "state"], format)?)?;
            Ok(())
        }
        Command::ExportRecovery { file, code_stdin } => {
            export(config, &file, code_stdin, format).await
        }
        Command::ImportRecovery { file } => import(config, &file, format),
    }
}

async fn status(config: &Settings, format: Format) -> Result<(), Failure> {
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let secrets = Secrets::check(store.clone(), existing(config)?).await.map_err(failed)?;
    let shown = |generation: &proximity_commands::secrets::Generation| -> Value {
        let mut row = json!(generation);
        for field in ["sealing_since", "replaced_at", "destroyed_at"] {
            row[field] = row[field].as_i64().map_or(Value::Null, |at| json!(rfc3339(at)));
        }
        row
    };
    let rows: Vec<Value> = secrets.generations().await.map_err(failed)?.iter().map(shown).collect();
    let columns = [
        "generation",
        "state",
        "held",
        "secrets",
        "since",
        "sealing_since",
        "replaced_at",
        "destroyed_at",
    ];
    print(&render(&rows, &columns, format)?)?;
    store.close().await;
    Ok(())
}

async fn rotate(
    config: &Settings,
    grace: u64,
    destroy: bool,
    format: Format,
) -> Result<(), Failure> {
    let rotated: Rotated = match control::ask(config, &Request::RotateKeys).await? {
        Some(answer) => serde_json::from_value(answer.map_err(refused)?)
            .context("the server's answer cannot be read")?,
        None => {
            let (store, secrets) = direct(config).await?;
            let rotated = secrets.rotate(&shell::actor(), Duration::from_secs(grace)).await;
            close_sealed(config, store).await;
            rotated.map_err(failed)?
        }
    };
    if destroy {
        // Those of earlier rotations, too: one may have been cut off right before this.
        let store = stores::open_read_only(config).await.map_err(unavailable)?;
        let (keys, _) = load::<Keys>(&store, STREAM).await.map_err(failed)?;
        store.close().await;
        for generation in &keys.replaced {
            destroy_one(config, generation).await?;
        }
    }
    let columns = ["generation", "replaced", "resealed", "left", "resumed"];
    print(&render(&[&rotated], &columns, format)?)?;
    if format == Format::Table {
        let backups = if destroy {
            "Old backups of the database open with the replaced key only, which is gone from here: \
             destroy its copies, too, or no secret in those backups is out of reach.\n"
        } else {
            "Old backups of the database open with the replaced key only: keep its copy as long as \
             those, or destroy both.\n"
        };
        tell(&format!("Make a new copy of the key file, or a new recovery file. {backups}"))?;
    }
    Ok(())
}

/// Says that neither the log nor the key file knows a generation.
async fn must_be_known(config: &Settings, generation: &str) -> Result<(), Failure> {
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let loaded = load::<Keys>(&store, STREAM).await;
    store.close().await;
    let (keys, _) = loaded.map_err(failed)?;
    let past = [&keys.leaving, &keys.replaced, &keys.destroyed].into_iter().flatten();
    let is_in_log = keys.current.iter().chain(past).any(|known| known == generation);
    let is_held = || {
        app::key_file(config).read().is_ok_and(|held| held.ids().iter().any(|id| id == generation))
    };
    if is_in_log || is_held() {
        return Ok(());
    }
    Err(Failure::NoSuchThing(format!("there is no key generation {generation}")))
}

async fn destroy_one(config: &Settings, generation: &str) -> Result<(), Failure> {
    let request = Request::DestroyKey { generation: generation.to_owned() };
    if let Some(answer) = control::ask(config, &request).await? {
        return answer.map(drop).map_err(refused);
    }
    let (store, secrets) = direct(config).await?;
    let destroyed = secrets.destroy(&shell::actor(), generation).await;
    close_sealed(config, store).await;
    destroyed.map_err(failed)
}

async fn export(
    config: &Settings,
    file: &Path,
    code_stdin: bool,
    format: Format,
) -> Result<(), Failure> {
    let keys = app::key_file(config).read().map_err(anyhow::Error::from)?;
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let installation = installation::read(&store).await?.unwrap_or_default();
    store.close().await;
    let code = if code_stdin {
        read_code()?
    } else {
        Recovery::new_code().map_err(anyhow::Error::from)?
    };
    // First: the master key leaves this machine with it.
    note(config, Act::ExportRecovery, &whole(file)).await?;
    let recovery = Recovery::seal(&keys, &installation, &code).map_err(anyhow::Error::from)?;
    let text = serde_json::to_string_pretty(&recovery).map_err(anyhow::Error::from)? + "\n";
    write_new(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut row = json!({ "file": file, "generations": recovery.generations });
    let mut columns = vec!["file", "generations"];
    if !code_stdin {
        row["code"] = json!(code.expose());
        columns.push("code");
    }
    let shown = render(&[row], &columns, format)?;
    if code_stdin {
        print(&shown)?
    } else {
        print_once(&shown)?
    }
    if format == Format::Table {
        tell(
            "Keep the code apart from the file: either is worth nothing alone, both open it all.\n",
        )?;
    }
    Ok(())
}

/// Writes all of it to a file that is not there yet, or leaves none.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(%error, file = %path.display(), "a part of the file is left over");
    }
    written
}

fn import(config: &Settings, file: &Path, format: Format) -> Result<(), Failure> {
    must_exist(file)?;
    config.ensure_data()?;
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (recovery, keys) = Recovery::open(&text, &read_code()?).map_err(anyhow::Error::from)?;
    let target = app::key_file(config);
    target.import(&keys).map_err(anyhow::Error::from)?;
    let row = json!({ "file": target.path(), "generations": keys.ids(), "installation": recovery.installation });
    print(&render(&[row], &["file", "generations", "installation"], format)?)?;
    Ok(())
}

fn read_code() -> Result<Secret, Failure> {
    let mut line = String::new();
    if std::io::stdin().is_terminal() {
        tell("recovery code: ")?;
        std::io::stdin().read_line(&mut line).map_err(anyhow::Error::from)?;
    } else {
        std::io::stdin().take(4096).read_to_string(&mut line).map_err(anyhow::Error::from)?;
    }
    Ok(Secret::new(line.trim().to_owned()))
}

/// Opens the store for writing; on SQLite no server runs then, or it would have answered.
async fn direct(config: &Settings) -> Result<(Store, Secrets), Failure> {
    let store = stores::open_existing(config).await.map_err(unavailable)?;
    let keys = app::open_keys(config, &store).await?;
    let secrets = Secrets::new(store.clone(), keys).await.map_err(failed)?;
    Ok((store, secrets))
}

/// The keys that there are: a look at them makes none.
fn existing(config: &Settings) -> Result<Keyring, Failure> {
    let file = app::key_file(config);
    let keys = file.open(true).map_err(anyhow::Error::from)?;
    Ok(Keyring::new(file, keys, config.database_url.is_some()))
}

fn tell(text: &str) -> Result<(), Failure> {
    Ok(std::io::stderr().write_all(text.as_bytes()).map_err(anyhow::Error::from)?)
}

fn unavailable(error: stores::Error) -> Failure {
    Failure::Unavailable(error.to_string())
}

fn failed(error: proximity_commands::Error) -> Failure {
    Failure::Failed(error.into())
}

fn refused(problem: String) -> Failure {
    Failure::Failed(anyhow::anyhow!(problem))
}
