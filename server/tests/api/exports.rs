//! An export of the log that does not come to its end does not look as if it had.

use std::time::{Duration, Instant};

use crate::harness::on_both;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_broken_off_ends_with_an_error_and_holds_up_no_stop() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        // More than the buffers on the way to a reader hold.
        world.noise(3_000).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let open = async |form: &str| {
            let answer = client
                .get(format!("{}/api/audit/events", world.server.url))
                .header("accept", form)
                .bearer_auth(&world.admin.token);
            answer.send().await.unwrap()
        };
        for form in ["application/x-ndjson", "text/csv"] {
            let whole = open(form).await.text().await.unwrap();
            assert!(whole.lines().count() > 3_000 && whole.ends_with('\n'), "{form}");
        }
        let mut answer = open("application/x-ndjson").await;
        answer.chunk().await.unwrap().expect("it begins");
        let began = Instant::now();
        world.stop().await;
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        let end = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break "its end",
                Err(_) => break "an error",
            }
        };
        assert_eq!(end, "an error", "what came looks like all of it");
    })
    .await;
}
