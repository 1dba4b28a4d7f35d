//! What rests on a store: health, readiness, positions; on both of them.

use crate::harness::{Server, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_an_empty_store_becomes_ready() {
    on_both(async |kind| {
        let server = Server::start_on(kind).await;
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status, 200, "{}", ready.text);
        assert_eq!(ready.body["database"], "connected");
        let health = server.get("/api/health/").await;
        assert_eq!(health.body["status"], "healthy");
        assert_eq!(health.body["service"], "proximity");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_log_or_of_another_life_is_refused_at_once() {
    on_both(async |kind| {
        let server = Server::start_on(kind).await;
        let answer = server.get("/api/catalog").await;
        let position = answer.header("proximity-position").to_owned();
        let (incarnation, number) = position.rsplit_once('.').unwrap();
        let reachable = server.get(&format!("/api/catalog?min_position={position}")).await;
        assert_eq!(reachable.status, 200, "{}", reachable.text);
        let beyond = number.parse::<u64>().unwrap() + 1_000_000;
        for wrong in [format!("{incarnation}.{beyond}"), format!("other.{number}"), "x".to_owned()]
        {
            let answer = server.get(&format!("/api/catalog?min_position={wrong}")).await;
            answer.problem(400, "position.unknown");
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_before_it_is_gone() {
    let server = Server::start().await;
    server.app.stop_being_ready();
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/api/catalog").await.status, 200);
    server.stop().await;
}
