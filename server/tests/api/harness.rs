//! Starts a server in this process on a free port, and speaks HTTP with it as any client would.

use std::sync::Arc;

use crate::contract;
use proximity_commands::clock::{Clock, SystemClock};
use proximity_server::app::App;
use proximity_server::config::Config;
use proximity_server::http::route::Route;
use proximity_server::http::{Listening, serve, serve_table};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// A running server with a data directory that goes away with it.
pub struct Server {
    pub app: Arc<App>,
    pub url: String,
    client: reqwest::Client,
    listening: Listening,
    data: tempfile::TempDir,
}

/// Which of the two stores a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Runs a test on both stores.
pub async fn on_both(test: impl AsyncFn(Kind)) {
    test(Kind::Sqlite).await;
    test(Kind::Postgres).await;
}

/// A database of its own in the cluster that `make test` started; it goes away with the cluster.
async fn fresh_database() -> String {
    use sqlx::Connection as _;
    let admin = std::env::var("PROXIMITY_TEST_POSTGRES")
        .expect("PROXIMITY_TEST_POSTGRES names no PostgreSQL: run the tests through `make test`");
    let name = format!("t{}", uuid::Uuid::new_v4().simple());
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    sqlx::query(&format!("create database {name}")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut url = url::Url::parse(&admin).unwrap();
    url.set_path(&name);
    url.into()
}

/// An answer with its body, parsed where it is JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of a cookie that it sets.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.headers
            .get_all("set-cookie")
            .iter()
            .map(|value| value.to_str().unwrap())
            .find_map(|cookie| cookie.strip_prefix(&format!("{name}=")))
            .map(|rest| rest.split(';').next().unwrap().to_owned())
    }

    /// Panics unless it is a problem of the one shape with this status and code.
    pub fn problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.body["code"], code, "{}", self.text);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert!(self.body["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert_eq!(self.body["request_id"].as_str().unwrap(), self.header("x-request-id"));
    }
}

/// The settings of a test server; a test changes what it is about.
pub fn settings(data: &std::path::Path) -> Config {
    let mut config = Config { data: data.to_owned(), ..Config::default() };
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.workers = 2;
    config
}

impl Server {
    /// Starts one with the usual settings.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one on the store that is asked for.
    pub async fn start_on(kind: Kind) -> Self {
        Self::start_on_with(kind, |_| {}).await
    }

    /// The same with settings changed.
    pub async fn start_on_with(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on_by(kind, SystemClock::shared(), change).await
    }

    /// The same by another clock than the machine's.
    pub async fn start_on_by(
        kind: Kind,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let url = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(fresh_database().await),
        };
        Self::start_by(clock, |config| {
            config.database_url = url.map(Into::into);
            change(config);
        })
        .await
    }

    /// Ends it as SIGTERM would.
    pub async fn stop(self) {
        self.app.stop(self.listening).await;
    }

    /// Starts one with settings changed.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_by(SystemClock::shared(), change).await
    }

    /// The same by another clock than the machine's.
    pub async fn start_by(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = settings(data.path());
        change(&mut config);
        Self::start_in(data, config, clock).await
    }

    async fn start_in(data: tempfile::TempDir, config: Config, clock: Arc<dyn Clock>) -> Self {
        let app = App::assemble_at(config, clock).await.unwrap();
        app.begin();
        let listening = serve(app.clone()).unwrap();
        let url = format!("http://{}", listening.address);
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { app, url, client, listening, data }
    }

    /// Another listener of the same server, with another table of routes.
    pub fn also_serve(&self, table: &'static [Route]) -> (String, Listening) {
        let listening = serve_table(self.app.clone(), table).unwrap();
        (format!("http://{}", listening.address), listening)
    }

    /// Ends it, does something meanwhile, and starts it again on the same data.
    pub async fn restarted(self, clock: Arc<dyn Clock>, meanwhile: impl FnOnce()) -> Self {
        let config = self.app.config.clone();
        self.app.stop(self.listening).await;
        drop(self.app);
        meanwhile();
        Self::start_in(self.data, config, clock).await
    }

    /// A second server on the same database, which has to be PostgreSQL, with the same master key.
    pub async fn beside(&self, clock: Arc<dyn Clock>) -> Self {
        let (url, key) =
            (self.app.config.database_url.clone(), self.data.path().join("master.key"));
        Self::start_by(clock, |config| {
            config.database_url = url;
            config.master_key_file = Some(key);
        })
        .await
    }

    /// One call, with headers and a body as they are given.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let verb = method.to_string();
        let answer = self.send(&self.url, method, path, headers, body).await;
        contract::check(&verb, path, &answer);
        answer
    }

    /// The same to wherever it says, whatever comes back.
    pub async fn send(
        &self,
        to: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        // A live stream has no end to wait for.
        let is_stream = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let text = if is_stream { String::new() } else { answer.text().await.unwrap() };
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }

    /// A plain GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], None).await
    }
}
