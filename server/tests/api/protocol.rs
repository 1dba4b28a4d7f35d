//! HTTP itself: slashes, methods, types, sizes, errors, headers, cookies, origins.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::Method;

use crate::harness::Server;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn each_path_answers_with_and_without_a_trailing_slash() {
    let server = Server::start().await;
    for path in ["/api/catalog", "/api/health", "/api/core/system/info", "/api/catalog/categories"]
    {
        let plain = server.get(path).await;
        let slashed = server.get(&format!("{path}/")).await;
        assert_eq!(plain.status, 200, "{path}");
        assert_eq!((slashed.status, &slashed.body), (plain.status, &plain.body), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_and_a_wrong_method_have_the_one_shape() {
    let server = Server::start().await;
    server.get("/api/nothing/here").await.problem(404, "route.unknown");
    server.get("/").await.problem(404, "route.unknown");
    let wrong = server.call(Method::PUT, "/api/catalog/", &[], None).await;
    wrong.problem(405, "method.not_allowed");
    assert_eq!(wrong.header("allow"), "GET, HEAD");
    let head = server.call(Method::HEAD, "/api/catalog", &[], None).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_does_not_exist_is_a_404_of_the_one_shape() {
    let server = Server::start().await;
    let list = server.get("/api/catalog").await;
    let first = list.body["applications"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/api/catalog/{first}")).await.body["id"], first.as_str());
    server.get("/api/catalog/no-such-application").await.problem(404, "not_found");
    server.get("/api/catalog/%ff%00").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_sorted_searched_and_counted() {
    let server = Server::start().await;
    let all = server.get("/api/catalog/").await.body;
    let names: Vec<String> = all["applications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|app| app["name"].as_str().unwrap().to_lowercase())
        .collect();
    assert!(names.is_sorted());
    assert_eq!(all["total"], names.len());
    let stats = server.get("/api/catalog/stats").await.body;
    assert_eq!(stats["total_apps"], names.len());
    let categories = server.get("/api/catalog/categories").await.body;
    let category = categories["categories"][0].as_str().unwrap().to_uppercase();
    let found = server.get(&format!("/api/catalog/category/{category}")).await.body;
    assert!(found["total"].as_u64().unwrap() > 0);
    let none = server.get("/api/catalog/search?q=%25%25%25%25").await.body;
    assert_eq!(none["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_client_cannot_take_is_a_406() {
    let server = Server::start().await;
    let answer = server.call(Method::GET, "/api/catalog", &[("accept", "text/html")], None).await;
    answer.problem(406, "accept.unsatisfiable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tagged_answer_is_sent_only_when_it_differs() {
    let server = Server::start().await;
    let first = server.get("/api/catalog").await;
    let tag = first.header("etag").to_owned();
    let again = server.call(Method::GET, "/api/catalog", &[("if-none-match", &tag)], None).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_a_request_id_of_ours_and_the_protective_headers() {
    let server = Server::start().await;
    let sent = ("x-request-id", "chosen-by-the-client");
    for path in ["/api/catalog", "/api/nothing", "/healthz"] {
        let answer = server.call(Method::GET, path, &[sent], None).await;
        let id = answer.header("x-request-id");
        assert!(id.len() == 32 && id != sent.1, "{path}: {id}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_to_a_browser_sets_the_csrf_cookie_and_later_ones_keep_it() {
    let server = Server::start().await;
    let first = server.get("/api/catalog").await;
    let token = first.cookie("csrftoken").unwrap();
    let kept = format!("csrftoken={token}");
    let again = server.call(Method::GET, "/api/catalog", &[("cookie", &kept)], None).await;
    assert_eq!(again.cookie("csrftoken"), None);
    let forged =
        server.call(Method::GET, "/api/catalog", &[("cookie", "csrftoken=forged")], None).await;
    assert!(forged.cookie("csrftoken").is_some());
    let scripted =
        server.call(Method::GET, "/api/catalog", &[("authorization", "Bearer x")], None).await;
    assert_eq!(scripted.cookie("csrftoken"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_origins_may_read_answers_and_none_by_default() {
    let server = Server::start_with(|config| {
        config.server.cors_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let ask =
        |origin: &'static str| [("origin", origin), ("access-control-request-method", "POST")];
    let path = "/api/catalog/reload";
    let allowed = server.call(Method::OPTIONS, path, &ask("https://app.example"), None).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    assert!(allowed.header("access-control-allow-headers").contains("x-csrftoken"));
    for origin in ["https://evil.example", "null", "https://app.example.evil"] {
        let refused = server.call(Method::OPTIONS, path, &ask(origin), None).await;
        refused.problem(405, "method.not_allowed");
        assert_eq!(refused.header("access-control-allow-origin"), "");
        server
            .call(Method::POST, path, &[("origin", origin)], None)
            .await
            .problem(403, "origin.refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_identity_is_told_so_before_the_body_is_looked_at() {
    let server = Server::start().await;
    let path = "/api/catalog/reload";
    server.call(Method::POST, path, &[JSON], Some(b"{")).await.problem(401, "identity.required");
    for garbage in ["Bearer nonsense", "Bearer ", "Basic YTpi", "nonsense"] {
        let answer = server.call(Method::POST, path, &[("authorization", garbage)], None).await;
        answer.problem(401, "identity.required");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_the_error_pages_are_served() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await;
    assert_eq!(document.body["openapi"], "3.1.0");
    let page = server.get("/problems/not_found").await;
    assert_eq!(page.header("content-type"), "text/markdown; charset=utf-8");
    assert!(page.text.starts_with("# "));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_shown_to_this_machine_or_with_the_token_only() {
    let token = uuid::Uuid::new_v4().to_string();
    let given = token.clone();
    let server = Server::start_with(move |config| {
        config.server.metrics_token = Some(given.into());
    })
    .await;
    let near = server.get("/metrics").await;
    assert!(near.text.contains("proximity_http_requests"), "{}", near.text);
    // A proxy on this machine passes strangers on.
    let far = [("x-forwarded-for", "203.0.113.9")];
    server.call(Method::GET, "/metrics", &far, None).await.problem(401, "identity.required");
    let bearer = format!("Bearer {token}");
    let known = [far[0], ("authorization", bearer.as_str())];
    assert_eq!(server.call(Method::GET, "/metrics", &known, None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cut_off_leaves_the_server_as_it_was() {
    let server = Server::start().await;
    let address = server.url.trim_start_matches("http://");
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(
                b"POST /api/catalog/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{",
            )
            .unwrap();
        drop(stream);
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_or_of_another_kind_is_refused() {
    let server = Server::start().await;
    let path = "/api/auth/login/";
    let large = vec![b' '; 17 * 1024];
    let answer = server.call(Method::POST, path, &[JSON], Some(&large)).await;
    answer.problem(413, "body.too_large");
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
    {
        let headers = [("content-type", kind)];
        let answer = server.call(Method::POST, path, &headers, Some(b"{}")).await;
        answer.problem(415, "body.unsupported");
    }
    let packed = [JSON, ("content-encoding", "gzip")];
    let answer = server.call(Method::POST, path, &packed, Some(b"{}")).await;
    answer.problem(415, "body.unsupported");
    let answer = server.call(Method::POST, path, &[JSON], Some(b"{")).await;
    answer.problem(400, "body.malformed");
    let answer = server.call(Method::POST, path, &[JSON], Some(b"{\"password\": 7}")).await;
    answer.problem(422, "value.invalid");
    assert_eq!(answer.body["errors"][0]["pointer"], "/password");
}
