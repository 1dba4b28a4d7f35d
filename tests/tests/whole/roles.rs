//! On PostgreSQL one role migrates and another one serves; `doctor` says when the second can do too much.

use proximity_tests::database::Kind;
use proximity_tests::figure;
use proximity_tests::process::Site;
use serde_json::Value;
use sqlx::Connection as _;

/// The finding of a check, and whether all is well with it.
fn finding(site: &Site, check: &str) -> (bool, String) {
    let output = site.command(&["doctor", "-o", "json"]).output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = findings.as_array().unwrap();
    let found = all.iter().find(|finding| finding["check"] == check).unwrap();
    (found["well"].as_bool().unwrap(), found["found"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_in_a_role_that_can_add_events_and_change_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(Kind::Postgres, folder.path()).await;
    site.run(&["migrate"]);
    let (well, found) = finding(&site, "database role");
    assert!(
        !well && found.contains("may update, delete, truncate, alter stored events"),
        "{found}"
    );

    // The statements of OPERATING.md.
    let owner = site.database_url().unwrap().to_owned();
    let role = format!("serving_{}", uuid::Uuid::new_v4().simple());
    let mut connection = sqlx::PgConnection::connect(&owner).await.unwrap();
    let sql = format!(
        "create role {role} login; select proximity_grant('{role}'); \
         drop schema if exists views cascade; grant {role} to current_user; \
         create schema views authorization {role}; revoke {role} from current_user;"
    );
    sqlx::raw_sql(&sql).execute(&mut connection).await.unwrap();
    let mut url = url::Url::parse(&owner).unwrap();
    url.set_username(&role).unwrap();
    site.set("DATABASE_URL", url.as_str());
    site.set("PROXIMITY_DATABASE__MIGRATE", "false");
    let server = site.serve().await;
    site.run(&["user", "add", "ann", "--admin"]);
    let (well, found) = finding(&site, "database role");
    assert!(well && found.starts_with(&role), "{found}");
    server.terminate();
    site.run(&["audit", "verify"]);
    let (well, found) = finding(&site, "seals");
    assert!(well, "{found}");
    figure!(
        "Postgres: a server in its own role: {found}; as the owner, doctor says that it could change events"
    );

    // One right too many is told as well.
    let sql = format!("grant update (payload) on events to {role}");
    sqlx::raw_sql(&sql).execute(&mut connection).await.unwrap();
    let (well, found) = finding(&site, "database role");
    assert!(!well && found.contains("may update stored events"), "{found}");
    let sql = format!("drop owned by {role} cascade; drop role {role}");
    sqlx::raw_sql(&sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
