//! An HTTP client as a script would use it: bearer token, JSON in and out.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The plain HTTP client of all tests: no proxy, no redirects, a deadline.
pub fn plain() -> reqwest::Client {
    // Several tests of one process ask for it; the first one installs it.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _first = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// An answer, its body parsed where it is JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body of a success; panics with the body of anything else.
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }

    /// The `code` of a problem.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// A caller with an identity, or none.
#[derive(Clone)]
pub struct Client {
    url: String,
    bearer: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// Nobody in particular.
    pub fn anonymous(url: &str) -> Self {
        Self { url: url.to_owned(), bearer: None, http: plain() }
    }

    /// Logs in and keeps the access token.
    pub async fn login(url: &str, username: &str, password: &str) -> Self {
        let mut client = Self::anonymous(url);
        let answer = client
            .post("/api/auth/login/", json!({ "username": username, "password": password }))
            .await
            .ok();
        client.bearer = Some(answer["access"].as_str().unwrap().to_owned());
        client
    }

    /// The same caller at another server of the same database.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// One call; an error means that no complete answer came.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, headers, body })
    }

    /// An answer that goes on, behind a position of the log: the live stream.
    pub async fn stream(
        &self,
        path: &str,
        after: u64,
    ) -> Result<reqwest::Response, reqwest::Error> {
        self.stream_behind(path, &after.to_string()).await
    }

    /// The same behind the message that a reader saw last.
    pub async fn stream_behind(
        &self,
        path: &str,
        last: &str,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let request = self.http.get(format!("{}{path}", self.url)).header("last-event-id", last);
        let mut request = request.timeout(Duration::from_secs(600));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        request.send().await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_call(Method::GET, path, None, &[]).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.try_call(Method::POST, path, Some(&body), &[]).await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.try_call(Method::DELETE, path, None, &[]).await.unwrap()
    }

    /// Reads until the answer is as wanted; panics with the last one when the time is over.
    pub async fn wait_until(
        &self,
        path: &str,
        within: Duration,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} stays {} {}", answer.status, answer.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
