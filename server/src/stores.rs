//! Opens what is kept: the log and the read models, on the store that the settings name.

use std::path::PathBuf;

use proximity_commands::Secret;
use proximity_eventstore::{
    Alone, Error as StoreError, MigrationReport, Options, Store, sqlite_file,
};
use proximity_projections::{Location, Views};

use crate::config::Config;

/// Connections of one process to PostgreSQL for reading and projecting.
const VIEW_CONNECTIONS: u32 = 8;

/// Why the store cannot be used, as a sentence for whoever runs the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the event store cannot be opened: {0}")]
    Log(String),
    #[error("the read models cannot be opened: {0}")]
    Views(String),
    /// A command that only goes on with what there is would make an empty log.
    #[error(
        "there is no event log in {}: name the directory with --data, or the database with DATABASE_URL",
        .0.display()
    )]
    Missing(PathBuf),
    #[error(
        "{0} says that this directory belongs to an installation on PostgreSQL: set DATABASE_URL, or \
         remove the file if that is over"
    )]
    Elsewhere(String),
}

/// How the log is opened.
pub fn options(config: &Config) -> Options {
    match &config.database_url {
        Some(url) => Options::postgres(url.expose()),
        None => Options::sqlite(&config.data),
    }
}

/// Where the read models lie.
pub fn location(config: &Config) -> Location {
    match &config.database_url {
        Some(url) => Location::Postgres {
            url: Secret::expose(url).to_owned(),
            connections: VIEW_CONNECTIONS,
        },
        None => Location::Sqlite { dir: config.data.clone() },
    }
}

/// In the data directory of a server on PostgreSQL: whoever forgets to name the database must not be shown
/// an empty log in its place, and believe that no secret is under its master key.
const ELSEWHERE: &str = "on-postgresql";

/// Refuses the embedded store where another one is used.
pub fn at_home(config: &Config) -> Result<(), Error> {
    let mark = config.data.join(ELSEWHERE);
    if config.database_url.is_none() && mark.exists() {
        return Err(Error::Elsewhere(mark.display().to_string()));
    }
    Ok(())
}

/// Notes that the data directory, if there is one, goes with a database elsewhere.
fn mark_elsewhere(config: &Config) {
    let mark = config.data.join(ELSEWHERE);
    if config.database_url.is_none() || !config.data.is_dir() || mark.exists() {
        return;
    }
    let text = "The event log of this installation is in PostgreSQL; see DATABASE_URL.\n";
    if let Err(error) = std::fs::write(&mark, text) {
        tracing::warn!(%error, file = %mark.display(), "the data directory cannot be marked");
    }
}

/// Opens a log for writing that has to be there.
pub async fn open_existing(config: &Config) -> Result<Store, Error> {
    exists(config)?;
    open(config).await
}

/// Opens it as it is: an older schema is left alone.
pub async fn open_unchanged(config: &Config) -> Result<Store, Error> {
    exists(config)?;
    Store::open(options(config)).await.map_err(log)
}

fn exists(config: &Config) -> Result<(), Error> {
    at_home(config)?;
    if config.database_url.is_none() && !sqlite_file(&config.data).exists() {
        return Err(Error::Missing(config.data.clone()));
    }
    Ok(())
}

/// Opens the log for writing. A schema that is behind is brought up to date when the settings
/// allow it; a role that may not says that `proximity migrate` has to be run.
pub async fn open(config: &Config) -> Result<Store, Error> {
    open_as(config, options(config)).await
}

/// The same for a server, which others can find while it runs.
pub async fn open_to_serve(config: &Config) -> Result<Store, Error> {
    open_as(config, options(config).to_serve()).await
}

/// Keeps servers away until it is dropped; refuses while one runs on the same database. The embedded store
/// is locked by whoever opens it.
pub async fn alone(config: &Config) -> Result<Alone, Error> {
    Alone::take(&options(config).location).await.map_err(log)
}

/// Whether a server runs on the log, here or, on PostgreSQL, anywhere.
pub async fn is_served(config: &Config) -> Result<bool, Error> {
    match &config.database_url {
        Some(_) => proximity_eventstore::is_served(&options(config).location).await.map_err(log),
        None => Ok(crate::control::is_served(config).await),
    }
}

async fn open_as(config: &Config, options: Options) -> Result<Store, Error> {
    at_home(config)?;
    let store = open_or_mend(config, options).await?;
    mark_elsewhere(config);
    Ok(store)
}

async fn open_or_mend(config: &Config, options: Options) -> Result<Store, Error> {
    match Store::open(options.clone()).await {
        Err(old @ StoreError::OlderSchema { .. }) if config.migrate => {
            let migrated = migrate(config).await;
            if let Err(error) = &migrated {
                tracing::warn!(%error, "the schema could not be brought up to date");
            }
            match migrated {
                Ok(_) => Store::open(options).await.map_err(log),
                Err(_) => Err(log(old)),
            }
        }
        other => other.map_err(log),
    }
}

/// Opens the log for reading, beside a running server or alone.
pub async fn open_read_only(config: &Config) -> Result<Store, Error> {
    exists(config)?;
    Store::open_read_only(options(config)).await.map_err(log)
}

/// Brings the schema up to date.
pub async fn migrate(config: &Config) -> Result<MigrationReport, Error> {
    at_home(config)?;
    Store::migrate(options(config)).await.map_err(log)
}

/// Throws away read models that were found damaged; for the server alone, after it has the log.
pub fn mend_views(config: &Config) -> Result<(), Error> {
    proximity_projections::discard_damaged(&location(config))
        .map_err(|error| Error::Views(crate::http::problem::chain(&error)))
}

/// Opens the read models over a log.
pub async fn views(config: &Config, store: &Store) -> Result<Views, Error> {
    Views::open(&location(config), std::sync::Arc::new(store.clone()))
        .await
        .map_err(|error| Error::Views(crate::http::problem::chain(&error)))
}

/// Opens the read models to change them beside a server, or without one; what is damaged is an error.
pub async fn views_beside(config: &Config, store: &Store) -> Result<Views, Error> {
    Views::open_beside(&location(config), std::sync::Arc::new(store.clone()))
        .await
        .map_err(|error| Error::Views(crate::http::problem::chain(&error)))
}

/// Opens the read models over a log for reading, and changes nothing of them; `None` when there are none.
pub async fn views_read_only(config: &Config, store: &Store) -> Result<Option<Views>, Error> {
    Views::open_read_only(&location(config), std::sync::Arc::new(store.clone()))
        .await
        .map_err(|error| Error::Views(crate::http::problem::chain(&error)))
}

fn log(error: StoreError) -> Error {
    Error::Log(crate::http::problem::chain(&error))
}
