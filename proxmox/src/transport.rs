//! Sends one request over HTTPS and reads its whole reply, within limits; knows no meaning.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::ext::ReasonPhrase;
use proximity_commands::ports::{ConnectionSpec, HypervisorError};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::tls::TlsInfo;
use tokio::time::{Instant, timeout_at};

use crate::limits::Limits;
use crate::request::{Method, Request};
use crate::silence::silence;
use crate::tls;

const CONNECT: &str = "connect";

/// Shorter than Proxmox's own 5 s, so that we seldom use a connection that it is about to close.
const IDLE: Duration = Duration::from_secs(3);

/// A reply, whatever its status.
pub(crate) struct Reply {
    pub status: u16,
    /// The status line's text, which is where older releases put the error.
    pub reason: String,
    pub body: Vec<u8>,
    /// The certificate that the connection was made with.
    pub certificate: Option<Vec<u8>>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The certificate was refused during the handshake: nothing was sent.
    Certificate(String),
    /// There was no connection: nothing was sent.
    NotSent(String),
    /// It was sent, at least in part, and no whole reply came.
    Lost(String),
    /// The reply is larger than the limit.
    TooLarge(usize),
}

/// The two connection pools to one host.
pub(crate) struct Transport {
    base: String,
    reads: reqwest::Client,
    /// Writes travel on fresh connections: one from a pool may be closing at that very moment, and
    /// then nobody could tell whether the write ran.
    writes: reqwest::Client,
    body: usize,
}

impl Transport {
    pub(crate) fn new(spec: &ConnectionSpec, limits: &Limits) -> Result<Self, HypervisorError> {
        let permanent =
            |reason: String| HypervisorError::Permanent { call: CONNECT, reason: reason.into() };
        let host = match spec.address.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => spec.address.clone(),
        };
        // Parsed alone, so that an address such as `a@b` or `a/b` cannot become another URL.
        let host = url::Host::parse(&host)
            .map_err(|_| permanent("the address is neither a name nor an IP address".to_owned()))?;
        let client = |idle: usize| -> Result<reqwest::Client, HypervisorError> {
            let tls =
                tls::client_config(spec.trust).map_err(|error| permanent(silence(&error, true)))?;
            reqwest::Client::builder()
                .use_preconfigured_tls(tls)
                .tls_info(true)
                .https_only(true)
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(limits.connect)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                .user_agent(concat!("proximity/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| permanent(silence(&error, true)))
        };
        Ok(Self {
            base: format!("https://{host}:{}/api2/json", spec.port),
            reads: client(limits.concurrency)?,
            writes: client(0)?,
            body: limits.body,
        })
    }

    /// One attempt, ended at the deadline. `headers` carry the credential.
    pub(crate) async fn send(
        &self,
        request: &Request,
        headers: HeaderMap,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let attempt = self.attempt(request, headers);
        match timeout_at(deadline, attempt).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Lost("no whole reply before the deadline".to_owned())),
        }
    }

    async fn attempt(&self, request: &Request, headers: HeaderMap) -> Result<Reply, Failure> {
        let params = request.encoded_params();
        let mut url = format!("{}{}", self.base, request.path);
        // A body on GET or DELETE is refused.
        let in_query = matches!(request.method, Method::Get | Method::Delete);
        if in_query && !params.is_empty() {
            url.push('?');
            url.push_str(&params);
        }
        let client = if request.is_write() { &self.writes } else { &self.reads };
        let mut builder = match request.method {
            Method::Get => client.get(url),
            Method::Post => client.post(url),
            Method::Put => client.put(url),
            Method::Delete => client.delete(url),
        };
        builder = builder.headers(headers);
        if !in_query && params.is_empty() {
            builder = builder.header(CONTENT_LENGTH, 0);
        } else if !in_query {
            builder =
                builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(params);
        }
        let response = builder.send().await.map_err(|error| failure(&error))?;
        self.read(response).await
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Reply, Failure> {
        let status = response.status();
        let extensions = response.extensions();
        let reason = match extensions.get::<ReasonPhrase>() {
            Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            None => status.canonical_reason().unwrap_or_default().to_owned(),
        };
        let certificate =
            extensions.get::<TlsInfo>().and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.body => {
                    return Err(Failure::TooLarge(self.body));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // A refusal's status line says enough; its body may be cut.
                Err(_) if !status.is_success() => break,
                Err(error) => return Err(failure(&error)),
            }
        }
        Ok(Reply { status: status.as_u16(), reason, body, certificate })
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    if let Some(reason) = tls::certificate_failure(error) {
        return Failure::Certificate(reason);
    }
    let reason = silence(error, error.is_connect());
    if error.is_connect() || error.is_builder() {
        Failure::NotSent(reason)
    } else {
        Failure::Lost(reason)
    }
}

/// What all clients of one host pass through; it admits as many calls at once as the limit says.
pub(crate) type Gate = Arc<tokio::sync::Semaphore>;
