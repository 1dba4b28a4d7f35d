//! A backup is put into a log of its own first, and verified and signed for there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use proximity_commands::Error;
use proximity_commands::secrets::Secrets;
use proximity_eventstore::backup::{Beginning, restore};
use proximity_eventstore::{Location, Options, Position, Store};

use super::Said;
use crate::app;
use crate::app::sealing::SigningKeys;
use crate::cli::verify::{keys, sign_restore};
use crate::cli::{Failure, Settings};
use crate::http::problem::chain;

/// Removed when it is dropped, and by the next restoration after a crash.
struct Scratch(PathBuf);

impl Scratch {
    fn new(config: &Settings) -> anyhow::Result<Self> {
        let this = Self(config.data.join("restoring"));
        this.clear()?;
        std::fs::create_dir(&this.0)?;
        Ok(this)
    }

    fn clear(&self) -> std::io::Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, path = %self.0.display(), "a copy of the log is left over");
        }
    }
}

/// That a restore was signed for.
pub(super) struct Signed {
    pub keys: SigningKeys,
    /// Up to where there are heads of the backup's life, where that is behind its end.
    pub younger: Option<Position>,
}

/// Verifies what is in the file, and signs that it is being restored; answers with the keys, or says
/// why nobody can sign. A log that does not verify is a failure, unless that is accepted.
pub(super) async fn sign(
    config: &Settings,
    file: &Path,
    beginning: Beginning,
    said: &Said,
) -> Result<Result<Signed, String>, Failure> {
    let scratch = Scratch::new(config)?;
    let location = Location::Sqlite { dir: scratch.0.clone() };
    restore(&location, file, beginning).await.map_err(anyhow::Error::from)?;
    let store = Store::open(Options::new(location)).await.map_err(anyhow::Error::from)?;
    let signed = match held(config, &store).await {
        Ok(Ok(keys)) => {
            let signed = sign_restore(&keys, &store, config, &said.note, said.accept_breaks).await;
            signed.map(|life| {
                let left = life.left.iter().find(|left| left.incarnation == life.from);
                let to = left.map(|left| left.position);
                Ok(Signed { keys, younger: to.filter(|to| *to > life.position) })
            })
        }
        Ok(Err(problem)) => Ok(Err(problem)),
        Err(failure) => Err(failure),
    };
    store.close().await;
    signed
}

/// The keys that sign in this log as it says itself, whatever the order of the file's lines; or why they are
/// not here. What the log says of its keys has to be readable.
async fn held(config: &Settings, store: &Store) -> Result<Result<SigningKeys, String>, Failure> {
    if let Err(problem) = key_fits(config, store).await {
        return Ok(Err(problem));
    }
    match Secrets::as_logged(store, keys(config)?).await {
        Ok(held) => Ok(Ok(SigningKeys::derive(&held))),
        Err(error @ Error::Unavailable { code: "keys.missing", .. }) => Ok(Err(chain(&error))),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}

async fn key_fits(config: &Settings, store: &Store) -> Result<(), String> {
    let keys = app::open_keys(config, store).await.map_err(|error| format!("{error:#}"))?;
    let checked = Secrets::check(store.clone(), keys).await;
    checked.map(drop).map_err(|error| chain(&error))
}
