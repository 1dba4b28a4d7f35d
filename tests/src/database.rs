//! A PostgreSQL database of a test's own, in the cluster that `make test` started.

use sqlx::Connection;

/// A fresh database; it goes away with the throw-away cluster.
pub struct Database {
    /// `postgres://…` of the new database.
    pub url: String,
}

impl Database {
    /// Makes one. Panics with a sentence when no cluster was given: a test that cannot run has failed.
    pub async fn create() -> Self {
        let admin = std::env::var("PROXIMITY_TEST_POSTGRES").expect(
            "PROXIMITY_TEST_POSTGRES names no PostgreSQL: run the tests through `make test`",
        );
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
        sqlx::query(&format!("create database {name}")).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let mut url = url::Url::parse(&admin).unwrap();
        url.set_path(&name);
        Self { url: url.into() }
    }
}

/// Which of the two stores a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}
