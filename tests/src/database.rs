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

    /// A database with the same rows; nobody may be connected to this one.
    pub async fn copy(&self) -> Self {
        let admin = std::env::var("PROXIMITY_TEST_POSTGRES").unwrap();
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        let mut url = url::Url::parse(&self.url).unwrap();
        let template = url.path().trim_start_matches('/').to_owned();
        let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
        let sql = format!("create database {name} template {template}");
        // A connection that was just closed may still be there for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while let Err(error) = sqlx::query(&sql).execute(&mut connection).await {
            assert!(std::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        connection.close().await.unwrap();
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
