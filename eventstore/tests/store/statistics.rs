//! What PostgreSQL believes to know of the log may be nothing, or old: few events are still read by index.

use std::time::{Duration, Instant};

use proximity_eventstore::Search;
use sqlx::{PgPool, Row as _};

use crate::support::Home;

const EVENTS: i64 = 40_000;
/// Events of one application, its backup among them.
const EACH: i64 = 20;

async fn fill(pool: &PgPool, from: i64, to: i64) {
    let sql = "insert into events (position, aggregate_type, aggregate_id, sequence, event_type, \
               event_version, payload, metadata, recorded_at) \
               select p, case k when 0 then 'application' when 1 then 'backup' else 'lease' end, \
                 case when k < 2 then a::text else p::text end, 1, 'x.happened', '1', '{}', \
                 json_build_object('correlation', 'c' || a, 'owner', (a % 7)::text), p \
               from (select p, p / $3 as a, p % $3 as k from generate_series($1, $2) as p) as made";
    sqlx::query(sql).bind(from).bind(to).bind(EACH).execute(pool).await.unwrap();
}

/// Rows of the log that were read one after the other, once all who read it have gone.
async fn read_in_order(pool: &PgPool) -> i64 {
    let begun = Instant::now();
    let readers = "select count(*) from pg_stat_activity \
                   where datname = current_database() and application_name like 'proximity%'";
    // What a connection has counted is known when it has ended.
    while sqlx::query(readers).fetch_one(pool).await.unwrap().get::<i64, _>(0) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "connections are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sql = "select seq_tup_read from pg_stat_user_tables where relname = 'events'";
    sqlx::query(sql).fetch_one(pool).await.unwrap().get(0)
}

fn searches() -> Vec<(Search, usize)> {
    let stream = |kind: &str| Some((kind.to_owned(), "500".to_owned()));
    let each = usize::try_from(EACH).unwrap();
    let around = Search { around: stream("application"), ..Search::default() };
    let outliving = Search { outliving: Some("backup".to_owned()), ..around.clone() };
    let stranger = Search { seen_by: Some("6".to_owned()), ..outliving.clone() };
    let of_two = Search {
        correlations: Some(vec!["c5".to_owned(), "c900".to_owned()]),
        ..Search::default()
    };
    let stream = Search { stream: stream("backup"), ..Search::default() };
    vec![(around, each), (outliving, each), (stranger, 1), (of_two, 2 * each), (stream, 1)]
}

#[tokio::test]
async fn few_events_are_read_by_index_whatever_is_known_of_the_log() {
    for analyzed in [0, 300] {
        let home = Home::postgres().await;
        let pool = PgPool::connect(&home.url()).await.unwrap();
        let off = "alter table events set (autovacuum_enabled = false)";
        sqlx::query(off).execute(&pool).await.unwrap();
        if analyzed > 0 {
            fill(&pool, 1, analyzed).await;
            sqlx::query("analyze events").execute(&pool).await.unwrap();
        }
        fill(&pool, analyzed + 1, EVENTS).await;
        let before = read_in_order(&pool).await;
        home.open().await.close().await;
        let by_opening = read_in_order(&pool).await - before;

        let store = home.open().await;
        for (search, count) in searches() {
            let found = store.search(&search, 100).await.unwrap();
            assert_eq!(found.events.len(), count, "{search:?}");
        }
        store.close().await;
        let read = read_in_order(&pool).await - before - 2 * by_opening;
        assert_eq!(read, 0, "{analyzed} events were known");
        pool.close().await;
    }
}
