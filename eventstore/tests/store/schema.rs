//! Who may change the schema and the log, and which schema a server accepts.

use proximity_eventstore::{
    Column, ColumnType, Error, Expected, Options, Store, Table, sqlite_file,
};
use sqlx::Row as _;

use crate::on_both_stores;
use crate::support::{Home, one};

async fn execute(home: &Home, sql: &str) -> Result<(), String> {
    if home.is_sqlite() {
        let connection = rusqlite::Connection::open(sqlite_file(home.dir())).unwrap();
        connection.execute_batch(sql).map_err(|error| error.to_string())
    } else {
        let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
        sqlx::raw_sql(sql).execute(&pool).await.map(drop).map_err(|error| error.to_string())
    }
}

static ALL_IMAGINED: &[&Table] = &[&IMAGINED];

static IMAGINED: Table = Table {
    name: "users",
    key: &["id"],
    columns: &[Column { name: "shoe_size", kind: ColumnType::Integer }],
};

on_both_stores! {
    async fn migrating_twice_changes_nothing(home: &Home) {
        Store::migrate(home.options()).await.unwrap();
        assert_eq!(Store::migrate(home.options()).await.unwrap().applied, Vec::<i64>::new());
    }

    async fn a_newer_schema_is_refused(home: &Home) {
        Store::migrate(home.options()).await.unwrap();
        execute(home, "insert into schema_migrations (version, name, checksum) values (9999, 'x', 'y')").await.unwrap();
        for refused in [
            Store::open(home.options()).await.err(),
            Store::open_read_only(home.options()).await.err(),
            Store::migrate(home.options()).await.err(),
        ] {
            assert!(matches!(refused, Some(Error::NewerSchema { found: 9999, .. })), "{refused:?}");
        }
    }

    async fn a_migration_with_another_text_is_refused(home: &Home) {
        Store::migrate(home.options()).await.unwrap();
        execute(home, "update schema_migrations set checksum = 'x' where version = 3").await.unwrap();
        let refused = Store::open(home.options()).await.err();
        assert!(matches!(refused, Some(Error::MigrationChanged { version: 3 })), "{refused:?}");
    }

    async fn a_declared_column_that_does_not_exist_is_refused(home: &Home) {
        let options = Options { side_tables: ALL_IMAGINED, ..home.options() };
        let refused = Store::open(options).await.err();
        assert!(matches!(refused, Some(Error::Undeclared { column: "shoe_size", .. })), "{refused:?}");
    }

    async fn only_how_old_appends_were_identified_is_forgotten(home: &Home) {
        let store = home.open().await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        let old = if home.is_sqlite() { "x'0000000000017000800000000000000a'" } else { "'00000000-0001-7000-8000-00000000000a'" };
        let sql = format!(
            "insert into appends (append_id, first_position, last_position, recorded_at) values ({old}, 1, 1, 1000)"
        );
        execute(home, &sql).await.unwrap();
        assert_eq!(store.forget_appends(500).await.unwrap(), 0);
        assert_eq!(store.forget_appends(3_600_000_000).await.unwrap(), 1);
        assert_eq!(store.forget_appends(3_600_000_000).await.unwrap(), 0);
        assert_eq!(store.feed(0, 10).await.unwrap().len(), 1, "an event is gone");
    }

    async fn events_are_never_changed_even_by_their_owner(home: &Home) {
        let store = home.open().await;
        store.append(one("a", Expected::At(0))).await.unwrap();
        for sql in ["update events set event_type = 'x'", "delete from events"] {
            let refused = execute(home, sql).await.unwrap_err();
            assert!(refused.contains("events are never"), "{refused}");
        }
        assert_eq!(store.feed(0, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_refused() {
    let home = Home::postgres().await;
    execute(&home, "drop table schema_migrations").await.unwrap();
    let refused = Store::open(home.options()).await.err();
    assert!(matches!(refused, Some(Error::OlderSchema { found: 0, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_role_appends_and_changes_nothing() {
    let home = Home::postgres().await;
    let role = format!("serving_{}", std::process::id());
    execute(&home, &format!("create role {role} login; select proximity_grant('{role}')"))
        .await
        .unwrap();
    let url = home.url();
    let (_, server) = url.rsplit_once('@').unwrap();
    let serving = format!("postgres://{role}@{server}");
    let store = Store::open(Options::postgres(&serving)).await.unwrap();
    store.append(one("a", Expected::At(0))).await.unwrap();
    store.ping_writable().await.unwrap();
    store.claim("c", uuid::Uuid::new_v4(), std::time::Duration::from_secs(1)).await.unwrap();
    let fenced = proximity_eventstore::Append {
        fence: Some(proximity_eventstore::Fence { claim: "c".to_owned(), epoch: 1 }),
        ..one("a", Expected::At(1))
    };
    store.append(fenced).await.unwrap();
    // Whatever it asks for, the last day stays.
    assert_eq!(store.forget_appends(i64::MAX / 2).await.unwrap(), 0);
    let pool = sqlx::PgPool::connect(&serving).await.unwrap();
    let mut refused = 0;
    let attempts = [
        "update events set event_type = 'x'",
        "delete from events",
        "truncate events",
        "alter table events disable trigger all",
        "drop table events",
        "delete from appends",
        "update appends set first_position = 0",
        "delete from seals",
        "update seals set block = 7",
        "create table mine (id int)",
    ];
    for attempt in attempts {
        let error = sqlx::raw_sql(attempt).execute(&pool).await.expect_err(attempt);
        let code = error.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{attempt}: {error}");
        refused += 1;
    }
    println!(
        "figure: postgres: the serving role was refused {refused} of {} changes",
        attempts.len()
    );
    let left: i64 =
        sqlx::query("select count(*) from events").fetch_one(&pool).await.unwrap().get(0);
    assert_eq!(left, 2);
    store.close().await;
    pool.close().await;
    execute(&home, &format!("drop owned by {role}; drop role {role}")).await.unwrap();
}
