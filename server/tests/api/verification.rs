//! Whether the log is as it was sealed, asked over HTTP.

use std::time::{Duration, Instant};

use proximity_commands::Secret;
use reqwest::Method;
use sqlx::Connection as _;

use crate::harness::{Answer, Kind, Server, on_both};
use crate::world::Person;
use proximity_server::demo::generated_password;

async fn admin(server: &Server) -> Person {
    let password = generated_password();
    server.app.create_admin("root", password.clone().into()).await.unwrap();
    server.sign_in("root", &password).await
}

/// Asks until a verification has ended that is younger than the question.
async fn verified(server: &Server, who: &Person) -> Answer {
    let path = "/api/audit/verify?max_age=0";
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = server.as_person(who, Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if answer.body["state"] == "finished" {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_told_whether_the_log_is_as_it_was_sealed() {
    on_both(async |kind| {
        let server = Server::start_on(kind).await;
        let root = admin(&server).await;
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = loop {
            let answer = verified(&server, &root).await;
            let result = &answer.body["result"];
            // A head is published after its block is sealed.
            let published = &result["lives"][0]["published_to"];
            if result["sealed_to"] == result["head"] && *published == result["head"] {
                break answer;
            }
            assert!(Instant::now() < deadline, "nothing is published: {}", answer.text);
        };
        let result = &answer.body["result"];
        assert_eq!((&result["clean"], &result["breaks"]), (&true.into(), &0.into()), "{result}");
        assert!(result["heads"].as_u64().unwrap() > 0, "{result}");
        assert_eq!(result["incarnation"], server.app.incarnation());
        // A result that is young enough is given again, and nothing is read for it.
        let again = server.as_person(&root, Method::GET, "/api/audit/verify", None).await;
        assert_eq!(again.body["finished_at"], answer.body["finished_at"]);
        let wrong =
            server.as_person(&root, Method::GET, "/api/audit/verify?max_age=-1", None).await;
        wrong.problem(422, "query.out_of_range");
        if kind == Kind::Postgres {
            let url = server.app.config.database_url.as_ref().map(Secret::expose).unwrap();
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            let sql = "alter table events disable trigger all; \
                       update events set recorded_at = recorded_at + 1 where position = 1";
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            let found = verified(&server, &root).await;
            let first = &found.body["result"]["first_break"];
            assert_eq!((&first["kind"], &first["position"]), (&"changed".into(), &1.into()));
        }
        // What cannot be read beside the heads is a finding, and no failure.
        let heads = server.app.config.data.join("heads");
        std::fs::write(heads.join("keys/stray.json"), "{").unwrap();
        let found = verified(&server, &root).await;
        let faults = found.body["result"]["faults"].as_array().unwrap().clone();
        assert!(faults.iter().any(|fault| fault["kind"] == "forged_head"), "{}", found.text);
        assert_eq!(server.get("/api/health").await.body["seals"], "sealed");
        // Heads that cannot be published are told, and requests go on.
        std::fs::remove_dir_all(&heads).unwrap();
        std::fs::write(&heads, "a file").unwrap();
        let password = generated_password();
        server.app.create_admin("more", password.into()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let health = server.get("/api/health").await;
            if health.body["seals"] == "failing" && health.body["status"] == "degraded" {
                break;
            }
            assert!(Instant::now() < deadline, "{}", health.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(server.get("/readyz").await.status, 200);
        let path = "/api/audit/verify?max_age=0";
        let failed = loop {
            let answer = server.as_person(&root, Method::GET, path, None).await;
            if answer.body["state"] != "running" {
                break answer;
            }
            assert!(Instant::now() < deadline, "{}", answer.text);
        };
        assert_eq!(failed.body["state"], "failed", "{}", failed.text);
        assert!(failed.body["reason"].as_str().unwrap().contains("heads"), "{}", failed.text);
        let metrics = server.get("/metrics").await.text;
        assert!(metrics.contains("proximity_sealed_position "), "{metrics}");
        server.stop().await;
    })
    .await;
}
