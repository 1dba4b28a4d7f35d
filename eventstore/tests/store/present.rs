//! Servers on PostgreSQL are found by whoever needs the log alone, and kept away meanwhile.

use std::time::{Duration, Instant};

use proximity_eventstore::{Alone, Error, Store, is_served};
use sqlx::Connection as _;

use crate::support::Home;

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_the_log_alone_is_refused_while_a_server_runs() {
    let home = Home::postgres().await;
    let alone = || async { Alone::take(&home.options().location).await };
    // Any number of servers, and commands that write beside them.
    let one = Store::open(home.options().to_serve()).await.unwrap();
    let two = Store::open(home.options().to_serve()).await.unwrap();
    let command = home.open().await;
    assert!(matches!(alone().await, Err(Error::Served)));
    one.close().await;
    assert!(matches!(alone().await, Err(Error::Served)), "the other one still runs");
    two.close().await;
    let held = alone().await.unwrap();
    command.close().await;
    assert!(matches!(alone().await, Err(Error::Served)), "two at once are one too many");
    let refused = Store::open(home.options().to_serve()).await;
    assert!(matches!(refused, Err(Error::Reserved)));
    home.open().await.close().await;
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Store::open(home.options().to_serve()).await {
        assert!(matches!(error, Error::Reserved) && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the connections by which servers are found, as a restart of PostgreSQL ends all.
const END: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
    where datname = current_database() and application_name = 'proximity-present'";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_found_by_whoever_comes_right_after_a_restart_of_postgresql() {
    let home = Home::postgres().await;
    let server = Store::open(home.options().to_serve()).await.unwrap();
    let mut admin = sqlx::PgConnection::connect(&home.url()).await.unwrap();
    for _ in 0..2 {
        sqlx::query(END).execute(&mut admin).await.unwrap();
        assert!(matches!(Alone::take(&home.options().location).await, Err(Error::Served)));
        // It has its share again, and was told of nobody who was alone.
        assert!(is_served(&home.options().location).await.unwrap());
    }
    server.close().await;
    admin.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_connection_is_found_again() {
    let home = Home::postgres().await;
    let server = Store::open(home.options().to_serve()).await.unwrap();
    let mut admin = sqlx::PgConnection::connect(&home.url()).await.unwrap();
    sqlx::query(END).execute(&mut admin).await.unwrap();
    let held = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' \
                and database = (select oid from pg_database where datname = current_database())";
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = 0_i64;
    let mut lost = false;
    while found == 0 || !lost {
        assert!(Instant::now() < deadline, "the lock is not taken again");
        found = sqlx::query_scalar(held).fetch_one(&mut admin).await.unwrap();
        lost |= found == 0;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(Alone::take(&home.options().location).await, Err(Error::Served)));
    server.close().await;
    admin.close().await.unwrap();
}
