//! Headers that cannot be read: refused by their names, and nothing is done as if they were absent.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::Kind;
use crate::world::{Person, World};

/// Status, code and detail of a call with headers in bytes.
async fn told(
    world: &World,
    who: &Person,
    method: Method,
    path: &str,
    headers: &[(&str, &[u8])],
    body: &Value,
) -> (u16, String, String) {
    let client = Client::builder().no_proxy().build().unwrap();
    let mut sent = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        sent.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let mut request = client.request(method, format!("{}{path}", world.server.url)).headers(sent);
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.bearer_auth(&who.token);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("detail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_cannot_be_read_is_refused_and_nothing_is_done() {
    let world = World::start(Kind::Sqlite).await;
    let app = world.deployed(&world.owner, "web-01").await;
    world.until(&format!("/api/apps/{app}"), |app| app.body["operation"].is_null()).await;
    let restart = json!({ "action": "restart" });
    let action = format!("/api/apps/{app}/action");
    let done = world.done().await;
    let (letter, json): (&[u8], &[u8]) = ("\"é\"".as_bytes(), b"application/json");
    for (headers, status, code) in [
        (vec![("if-match", letter)], 400, "request.malformed"),
        (vec![("if-match", b"\xe9".as_slice())], 400, "request.malformed"),
        (vec![("if-match", b"*".as_slice()), ("if-match", letter)], 400, "request.malformed"),
        (vec![("idempotency-key", letter)], 400, "request.malformed"),
        (vec![("idempotency-key", b"a"), ("idempotency-key", b"b")], 400, "request.malformed"),
        (vec![("accept", letter)], 400, "request.malformed"),
        (vec![("content-type", letter)], 400, "request.malformed"),
        (
            vec![("content-type", json), ("content-type", b"text/plain".as_slice())],
            400,
            "request.malformed",
        ),
        (vec![("content-type", json), ("content-type", json)], 400, "request.malformed"),
        (vec![("authorization", b"Bearer \xe9".as_slice())], 401, "identity.required"),
    ] {
        let told = told(&world, &world.owner, Method::POST, &action, &headers, &restart).await;
        assert_eq!((told.0, &*told.1), (status, code), "{headers:?}: {told:?}");
        if status == 400 {
            assert!(told.2.contains(headers[0].0), "{told:?}");
        }
    }
    assert_eq!(world.done().await, done, "something was done");
    let stream = "/api/events/stream";
    for ids in [vec![b"\xe9".as_slice()], vec![b"1", b"2"]] {
        let headers: Vec<(&str, &[u8])> = ids.into_iter().map(|id| ("last-event-id", id)).collect();
        let told = told(&world, &world.owner, Method::GET, stream, &headers, &Value::Null).await;
        assert_eq!((told.0, &*told.1), (400, "position.unknown"), "{headers:?}: {told:?}");
    }
    let headers: [(&str, &[u8]); 1] = [("if-none-match", letter)];
    let told = told(&world, &world.owner, Method::GET, "/api/apps", &headers, &Value::Null).await;
    assert_eq!((told.0, &*told.1), (400, "request.malformed"), "{told:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_is_the_tag_as_it_was_given_on_one_line_or_several() {
    let world = World::start(Kind::Sqlite).await;
    let path = "/api/auth/user";
    let tag = world.get(&world.owner, path).await.header("etag").to_owned();
    let change = async |lines: &[&str], name: &str| {
        let headers: Vec<(&str, &[u8])> =
            lines.iter().map(|line| ("if-match", line.as_bytes())).collect();
        let body = json!({ "first_name": name });
        told(&world, &world.owner, Method::PATCH, path, &headers, &body).await
    };
    let plain = tag.trim_matches('"').to_owned();
    for other in [plain.clone(), format!("\"{plain}-anything\""), format!("W/{tag}")] {
        let told = change(&[&other], "Eve").await;
        assert_eq!((told.0, &*told.1), (412, "precondition.failed"), "{other}: {told:?}");
    }
    let told = change(&["\"x\"", &format!("\"y\", {tag}")], "Ann").await;
    assert_eq!(told.0, 200, "{told:?}");
    let told = change(&["\"x\"", &tag], "Eve").await;
    assert_eq!((told.0, &*told.1), (412, "precondition.failed"), "{told:?}");
    assert_eq!(world.get(&world.owner, path).await.body["first_name"], "Ann");
    world.stop().await;
}
