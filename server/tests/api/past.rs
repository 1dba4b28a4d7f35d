//! Time travel: every state that an application was ever seen in can be seen again.

use std::sync::Arc;

use proximity_commands::Secret;
use proximity_projections::replay::{self, Until};
use proximity_server::past::{Moment, micros};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Kind, on_both};
use crate::world::World;

/// What the past does not know: figures and where a page opens now.
fn still(app: &Value) -> Value {
    let mut app = app.clone();
    for field in
        ["cpu_usage", "memory_used", "memory_total", "disk_used", "disk_total", "url", "iframe_url"]
    {
        app[field] = Value::Null;
    }
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_seen_as_it_was_at_each_moment_even_when_it_is_gone() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let store = world.server.app.store.clone();
        let id = world.deployed(&world.owner, "web-01").await;
        let app = format!("/api/apps/{id}");
        let running = world.get(&world.owner, &app).await.body;
        let deployed_at = store.head().await.unwrap();
        let stop = json!({ "action": "stop" });
        world.post(&world.owner, &format!("{app}/action"), &stop).await;
        let stopped = world.until(&app, |answer| answer.body["status"] == "stopped").await.body;
        let stopped_at = store.head().await.unwrap();
        world.server.as_person(&world.owner, Method::DELETE, &app, None).await;
        world.until(&app, |answer| answer.status == 404).await;

        let at = async |who, moment: String| world.get(who, &format!("{app}?at={moment}")).await;
        let then = at(&world.owner, deployed_at.to_string()).await;
        assert_eq!(then.status, 200, "{}", then.text);
        assert_eq!(still(&then.body), still(&running));
        let then = at(&world.admin, stopped_at.to_string()).await;
        assert_eq!(still(&then.body), still(&stopped));
        let by_time = stopped["updated_at"].as_str().unwrap().replace('+', "%2B");
        assert_eq!(still(&at(&world.owner, by_time).await.body), still(&stopped));
        for moment in ["1", "2001-01-01T00:00:00Z"] {
            at(&world.owner, moment.to_owned()).await.problem(404, "not_found");
        }
        at(&world.owner, store.head().await.unwrap().to_string()).await.problem(404, "not_found");
        at(&world.other, deployed_at.to_string()).await.problem(404, "not_found");
        let beyond = at(&world.owner, "99999999".to_owned()).await;
        beyond.problem(400, "position.unknown");
        assert!(beyond.body["detail"].as_str().unwrap().starts_with("at: "), "{}", beyond.text);
        at(&world.owner, "yesterday".to_owned()).await.problem(400, "query.malformed");

        let path = format!("{app}/diff?from={deployed_at}&to={stopped_at}");
        let diff = world.get(&world.owner, &path).await;
        assert_eq!(diff.status, 200, "{}", diff.text);
        let beyond = world.get(&world.owner, &format!("{app}/diff?from=1&to=99999999")).await;
        beyond.problem(400, "position.unknown");
        assert!(beyond.body["detail"].as_str().unwrap().starts_with("to: "), "{}", beyond.text);
        let changes = diff.body["changes"].as_array().unwrap();
        let status = changes.iter().find(|change| change["pointer"] == "/status").unwrap();
        assert_eq!((&status["before"], &status["after"]), (&json!("running"), &json!("stopped")));
        let owner = format!("user/{}", running["owner"]);
        let events = diff.body["events"].as_array().unwrap();
        assert_eq!(events[0]["actor"], owner, "{}", diff.text);
        let last = events.last().unwrap()["position"].as_u64().unwrap();
        assert!(last <= stopped_at && events[0]["position"].as_u64().unwrap() > deployed_at);
        let whole = world.get(&world.owner, &format!("{app}/diff?from=0")).await.body;
        assert_eq!(whole["existed_before"], false);
        assert_eq!((&whole["existed_after"], &whole["changes"]), (&json!(false), &json!([])));
        world.get(&world.other, &path).await.problem(404, "not_found");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_one_place_in_the_log_whatever_its_clocks_have_done() {
    let world = World::start(Kind::Postgres).await;
    let store = world.server.app.store.clone();
    let id = world.deployed(&world.owner, "web-01").await;
    let app = format!("/api/apps/{id}");
    world.until(&app, |answer| answer.body["operation"].is_null()).await;
    let deployed_at = store.head().await.unwrap();
    world.post(&world.owner, &format!("{app}/action"), &json!({ "action": "stop" })).await;
    world.until(&app, |answer| answer.body["status"] == "stopped").await;
    world.until(&app, |answer| answer.body["operation"].is_null()).await;
    let history = world.get(&world.owner, &format!("{app}/history")).await.body;
    let of_stop = history["events"].as_array().unwrap().iter();
    let of_stop = of_stop.filter(|event| event["position"].as_u64().unwrap() > deployed_at);
    let (position, at) = of_stop
        .map(|event| (event["position"].as_u64().unwrap(), event["recorded_at"].clone()))
        .next()
        .unwrap();
    let at = micros(at.as_str().unwrap()).unwrap();
    let url = world.server.app.config.database_url.as_ref().map(Secret::expose).unwrap();
    let mut database = sqlx::PgConnection::connect(url).await.unwrap();
    let hour = 3_600_000_000;
    let written = |micros: i64| {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap();
        moment.format(&Rfc3339).unwrap()
    };
    // Its own first event of the stop, by a clock that is ahead for a moment and then by one that is behind.
    for (clock, asked) in
        [(at + hour, at + hour / 2), (at - hour, at - hour), (at - hour, at - hour / 2)]
    {
        let sql = format!(
            "alter table events disable trigger all; \
             update events set recorded_at = {clock} where position = {position}"
        );
        sqlx::raw_sql(&sql).execute(&mut database).await.unwrap();
        let (is_ahead, head) = (clock > at, store.head().await.unwrap());
        let place = Moment::Time(asked).place(&store).await.unwrap();
        assert!(if is_ahead { place >= head } else { place == position }, "{clock} {asked}");
        let then = world.get(&world.owner, &format!("{app}?at={}", written(asked))).await;
        assert_eq!(then.status, 200, "{}", then.text);
        assert_eq!(then.body["status"] == "stopped", is_ahead, "{}", then.text);
        let there = world.get(&world.owner, &format!("{app}?at={place}")).await;
        assert_eq!(then.text, there.text);
        // The whole log is told of the same moment.
        let feed = Arc::new(store.clone());
        let whole = replay::state(feed, Until::Position(place), Arc::new(|_| {})).await.unwrap();
        let told = &whole.rows["applications"][0];
        assert_eq!([&told["id"], &told["status"]], [&then.body["id"], &then.body["status"]]);
        let diff = format!("{app}/diff?from=2001-01-01T00:00:00Z&to={}", written(asked));
        let diff = world.get(&world.owner, &diff).await;
        let events = diff.body["events"].as_array().unwrap();
        let last = events.last().unwrap()["position"].as_u64().unwrap();
        assert!(last <= place && events.iter().any(|event| event["position"] == position));
    }
    database.close().await.unwrap();
    world.stop().await;
}
