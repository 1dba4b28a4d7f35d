//! Opens what is kept: the log and the read models, on the store that the settings name.

use proximity_commands::Secret;
use proximity_eventstore::{Error as StoreError, MigrationReport, Options, Store};
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

/// Opens the log for writing. A schema that is behind is brought up to date when the settings
/// allow it; a role that may not says that `proximity migrate` has to be run.
pub async fn open(config: &Config) -> Result<Store, Error> {
    match Store::open(options(config)).await {
        Err(old @ StoreError::OlderSchema { .. }) if config.migrate => {
            let migrated = migrate(config).await;
            if let Err(error) = &migrated {
                tracing::warn!(%error, "the schema could not be brought up to date");
            }
            match migrated {
                Ok(_) => Store::open(options(config)).await.map_err(log),
                Err(_) => Err(log(old)),
            }
        }
        other => other.map_err(log),
    }
}

/// Opens the log for reading, beside a running server or alone.
pub async fn open_read_only(config: &Config) -> Result<Store, Error> {
    Store::open_read_only(options(config)).await.map_err(log)
}

/// Brings the schema up to date.
pub async fn migrate(config: &Config) -> Result<MigrationReport, Error> {
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
