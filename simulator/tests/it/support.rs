//! A caller with a ticket or a token, and waiting for tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::ext::ReasonPhrase;
use proximity_simulator::{Simulator, SimulatorConfig, SimulatorHandle};
use reqwest::{Certificate, Client, Method, RequestBuilder};
use serde_json::{Value, json};

pub const ALPINE: &str = "local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz";

/// What a call got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub reason: String,
    pub text: String,
    pub body: Value,
}

impl Got {
    pub fn data(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body["data"]
    }

    /// The parameter error of that name.
    pub fn error(&self, name: &str) -> &str {
        assert_eq!((self.status, self.reason.as_str()), (400, "Parameter verification failed."));
        self.body["errors"][name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Asserts a refusal in reason phrase and body alike.
    #[track_caller]
    pub fn refused(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.reason.as_str()), (status, text), "{self:?}");
        assert_eq!(self.body["message"], json!(format!("{text}\n")), "{self:?}");
        assert_eq!(self.body["data"], Value::Null);
    }
}

/// How a caller proves who it is.
#[derive(Clone)]
pub enum Credential {
    None,
    Ticket { ticket: String, csrf: String },
    Token(String),
}

/// A caller.
#[derive(Clone)]
pub struct Caller {
    pub http: Client,
    pub base: String,
    pub credential: Credential,
}

pub fn http(sim: &SimulatorHandle) -> Client {
    // The first of several tests installs it; the others find it there.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        // Already installed.
    }
    Client::builder()
        .add_root_certificate(Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap())
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

pub async fn got(request: RequestBuilder) -> Result<Got, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let canonical = response.status().canonical_reason().unwrap_or_default().to_owned();
    let reason = response
        .extensions()
        .get::<ReasonPhrase>()
        .map_or(canonical, |phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Got { status, reason, text, body })
}

impl Caller {
    pub fn anonymous(sim: &SimulatorHandle) -> Self {
        Self { http: http(sim), base: sim.url(), credential: Credential::None }
    }

    pub fn token(sim: &SimulatorHandle, token: &str) -> Self {
        Self { credential: Credential::Token(token.to_owned()), ..Self::anonymous(sim) }
    }

    pub async fn login(sim: &SimulatorHandle, user: &str, password: &str) -> Self {
        let mut caller = Self::anonymous(sim);
        let got =
            caller.post("/access/ticket", &[("username", user), ("password", password)]).await;
        let text = |key: &str| got.data()[key].as_str().unwrap().to_owned();
        caller.credential =
            Credential::Ticket { ticket: text("ticket"), csrf: text("CSRFPreventionToken") };
        caller
    }

    pub async fn root(sim: &SimulatorHandle) -> Self {
        Self::login(sim, "root@pam", sim.root_password()).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api2/json{path}", self.base));
        match &self.credential {
            Credential::None => request,
            Credential::Ticket { ticket, csrf } => request
                .header("Cookie", format!("PVEAuthCookie={ticket}"))
                .header("CSRFPreventionToken", csrf),
            Credential::Token(token) => {
                request.header("Authorization", format!("PVEAPIToken={token}"))
            }
        }
    }

    pub async fn get(&self, path: &str) -> Got {
        got(self.request(Method::GET, path)).await.unwrap()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Got {
        self.try_post(path, form).await.unwrap()
    }

    pub async fn try_post(&self, path: &str, form: &[(&str, &str)]) -> Result<Got, reqwest::Error> {
        got(self.request(Method::POST, path).form(form)).await
    }

    pub async fn put(&self, path: &str, form: &[(&str, &str)]) -> Got {
        got(self.request(Method::PUT, path).form(form)).await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Got {
        got(self.request(Method::DELETE, path)).await.unwrap()
    }

    /// Waits until a task has ended, and returns its exit status.
    pub async fn exit(&self, got: &Got) -> String {
        self.exit_of(got.data().as_str().expect("a UPID")).await
    }

    pub async fn exit_of(&self, upid: &str) -> String {
        let node = upid.split(':').nth(1).unwrap();
        let path = format!("/nodes/{node}/tasks/{upid}/status");
        loop {
            let state = self.get(&path).await;
            if state.data()["status"] == "stopped" {
                return state.data()["exitstatus"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn log(&self, upid: &str) -> Vec<String> {
        let node = upid.split(':').nth(1).unwrap();
        let got = self.get(&format!("/nodes/{node}/tasks/{upid}/log?limit=500")).await;
        let lines = got.data().as_array().unwrap();
        lines.iter().map(|line| line["t"].as_str().unwrap().to_owned()).collect()
    }

    /// Creates a stopped container from the template that is there.
    pub async fn container(&self, vmid: u32, more: &[(&str, &str)]) {
        let vmid = vmid.to_string();
        let mut form = vec![("vmid", vmid.as_str()), ("ostemplate", ALPINE)];
        form.extend_from_slice(more);
        let created = self.post("/nodes/pve1/lxc", &form).await;
        assert_eq!(self.exit(&created).await, "OK");
    }

    pub async fn start(&self, vmid: u32) {
        let got = self.post(&format!("/nodes/pve1/lxc/{vmid}/status/start"), &[]).await;
        assert_eq!(self.exit(&got).await, "OK");
    }

    pub async fn config(&self, vmid: u32) -> BTreeMap<String, Value> {
        let got = self.get(&format!("/nodes/pve1/lxc/{vmid}/config")).await;
        got.data().as_object().unwrap().clone().into_iter().collect()
    }
}

/// A simulator that waits for nothing, and its superuser.
pub async fn quick() -> (SimulatorHandle, Caller) {
    with(SimulatorConfig::quick()).await
}

pub async fn with(config: SimulatorConfig) -> (SimulatorHandle, Caller) {
    let sim = Simulator::start(config).await.unwrap();
    let root = Caller::root(&sim).await;
    (sim, root)
}
