//! A TLS server with a script: it records each request and answers as it is told, well or badly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proximity_commands::Secret;
use proximity_commands::ports::{ConnectionSpec, Credential, Trust};
use proximity_domain::Port;
use proximity_domain::host::Fingerprint;
use proximity_proxmox::{Limits, PveClient};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A secret made for this run only.
pub fn random_secret() -> String {
    std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z'))).take(32).collect()
}

/// One request as it arrived.
#[derive(Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    /// The call as `GET /nodes`, without the prefix of the API.
    pub fn call(&self) -> String {
        format!("{} {}", self.method, self.path.trim_start_matches("/api2/json"))
    }

    pub fn is_login(&self) -> bool {
        self.call() == "POST /access/ticket"
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// A parameter of the form or the query.
    pub fn param(&self, name: &str) -> Option<String> {
        let text = if self.query.is_empty() { &self.body } else { &self.query };
        form_urlencoded::parse(text.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Act {
    /// Status line's rest (`500 CT 100 already running`), then the body.
    Reply(String, String),
    /// The same after a while.
    Slow(Duration, String, String),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// A good reply, and the connection closed without a word about it.
    ReplyAndClose(String),
    /// Nothing, until the client gives up.
    Silence,
    /// The end of the connection.
    Close,
}

/// 200 with this data.
pub fn data(json: &str) -> Act {
    Act::Reply("200 OK".to_owned(), format!("{{\"data\":{json}}}"))
}

/// A refusal as Proxmox VE 9 sends it.
pub fn refusal(status: u16, text: &str) -> Act {
    let body = serde_json::json!({"data": null, "message": format!("{text}\n")});
    Act::Reply(format!("{status} {text}"), body.to_string())
}

/// The reply to a log-in; `ticket` is the ticket.
pub fn ticket(ticket: &str) -> Act {
    let body = serde_json::json!({
        "ticket": ticket, "CSRFPreventionToken": format!("csrf-of-{ticket}"), "username": "root@pam",
    });
    data(&body.to_string())
}

type Script = Box<dyn Fn(usize, &Seen) -> Act + Send + Sync>;

/// What a server shows in the handshake.
pub struct Identity {
    pub key: CertifiedKey,
    pub fingerprint: Fingerprint,
}

fn digest(der: &[u8]) -> Fingerprint {
    Fingerprint::from_digest(Sha256::digest(der).into())
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> CertifiedKey {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::new(chain, any_ecdsa_type(&der).unwrap())
}

/// An authority as a Proxmox installation makes one, its name unique.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub fn new(organisation: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::OrganizationalUnitName, random_secret());
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// A node's certificate for 127.0.0.1 that ended, or will end, in so many days.
    pub fn issue(&self, days: i64) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(400);
        params.not_after = now + time::Duration::days(days);
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
    }

    pub fn identity(&self, days: i64) -> Identity {
        let (leaf, key) = self.issue(days);
        Identity { fingerprint: digest(&leaf), key: certified(vec![leaf], &key) }
    }
}

impl Identity {
    pub fn valid() -> Self {
        Authority::new("PVE Cluster Manager CA").identity(365)
    }

    /// A certificate whose key is another's, as a thief without the key would show it.
    pub fn stolen() -> Self {
        let (leaf, _) = Authority::new("PVE Cluster Manager CA").issue(365);
        let fingerprint = digest(&leaf);
        Identity { key: certified(vec![leaf], &KeyPair::generate().unwrap()), fingerprint }
    }

    /// An impostor's certificate with the genuine one behind it; the fingerprint is the genuine one's.
    pub fn genuine_behind_foreign() -> Self {
        let (genuine, _) = Authority::new("PVE Cluster Manager CA").issue(365);
        let (foreign, key) = Authority::new("PVE Cluster Manager CA").issue(365);
        let fingerprint = digest(&genuine);
        Identity { key: certified(vec![foreign, genuine], &key), fingerprint }
    }
}

#[derive(Debug)]
struct Show(Arc<CertifiedKey>);

impl ResolvesServerCert for Show {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    application_bytes: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// The running server; it ends with the test's runtime.
pub struct Server {
    pub port: Port,
    pub fingerprint: Fingerprint,
    log: Arc<Log>,
}

impl Server {
    pub async fn start(script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::with(Identity::valid(), rustls::ALL_VERSIONS, script).await
    }

    pub async fn with(
        identity: Identity,
        versions: &[&'static rustls::SupportedProtocolVersion],
        script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Show(Arc::new(identity.key))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let script: Arc<Script> = Arc::new(Box::new(script));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, log, script) =
                    (acceptor.clone(), Arc::clone(&shared), Arc::clone(&script));
                tokio::spawn(async move {
                    // Each end of a connection is one that some test wants.
                    drop(serve(acceptor, socket, &log, &script).await);
                });
            }
        });
        Self {
            port: Port::try_from(i64::from(port)).unwrap(),
            fingerprint: identity.fingerprint,
            log,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    /// The calls without log-ins, in order.
    pub fn calls(&self) -> Vec<String> {
        self.seen().iter().filter(|seen| !seen.is_login()).map(Seen::call).collect()
    }

    pub fn logins(&self) -> usize {
        self.seen().iter().filter(|seen| seen.is_login()).count()
    }

    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Decrypted bytes that arrived after any handshake.
    pub fn application_bytes(&self) -> usize {
        self.log.application_bytes.load(Ordering::SeqCst)
    }

    /// The most requests that were in flight at once.
    pub fn most_at_once(&self) -> usize {
        self.log.most.load(Ordering::SeqCst)
    }

    pub fn spec(&self, credential: Credential) -> ConnectionSpec {
        ConnectionSpec {
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: "root@pam".to_owned(),
            credential,
            trust: Trust::Pinned(self.fingerprint),
        }
    }

    /// A client with a token, which needs no log-in.
    pub fn client(&self) -> PveClient {
        let secret = Secret::new(random_secret());
        let credential = Credential::Token { id: "proximity".to_owned(), secret };
        PveClient::connect(&self.spec(credential), limits()).unwrap()
    }

    /// A client with a password.
    pub fn client_with_password(&self, limits: Limits) -> PveClient {
        let credential = Credential::Password(Secret::new(random_secret()));
        PveClient::connect(&self.spec(credential), limits).unwrap()
    }
}

/// Deadlines that a test can wait for.
pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        read: Duration::from_secs(4),
        write: Duration::from_millis(1500),
        refusal_pause: Duration::ZERO,
        ..Limits::default()
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    log: &Log,
    script: &Script,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(socket).await?);
    while let Some(request) = read_request(&mut stream, log).await? {
        let number = {
            let mut seen = log.seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let now = log.now.fetch_add(1, Ordering::SeqCst) + 1;
        log.most.fetch_max(now, Ordering::SeqCst);
        let act = script(number, &request);
        let goes_on = perform(act, &mut stream).await;
        log.now.fetch_sub(1, Ordering::SeqCst);
        if !goes_on? {
            break;
        }
    }
    stream.get_mut().shutdown().await
}

/// Whether the connection goes on.
async fn perform(
    act: Act,
    stream: &mut BufReader<tokio_rustls::server::TlsStream<TcpStream>>,
) -> std::io::Result<bool> {
    let http = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
            body.len()
        )
    };
    let (bytes, goes_on) = match act {
        Act::Reply(status, body) => (http(&status, &body).into_bytes(), true),
        Act::Slow(pause, status, body) => {
            tokio::time::sleep(pause).await;
            (http(&status, &body).into_bytes(), true)
        }
        Act::Raw(bytes) => (bytes, false),
        Act::ReplyAndClose(body) => (http("200 OK", &body).into_bytes(), false),
        Act::Silence => {
            let mut rest = [0; 64];
            while stream.read(&mut rest).await? > 0 {}
            return Ok(false);
        }
        Act::Close => return Ok(false),
    };
    stream.get_mut().write_all(&bytes).await?;
    stream.get_mut().flush().await?;
    Ok(goes_on)
}

async fn read_request(
    stream: &mut BufReader<tokio_rustls::server::TlsStream<TcpStream>>,
    log: &Log,
) -> std::io::Result<Option<Seen>> {
    let mut seen = Seen::default();
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    log.application_bytes.fetch_add(line.len(), Ordering::SeqCst);
    let mut words = line.split_whitespace();
    seen.method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (seen.path, seen.query) = (path.to_owned(), query.to_owned());
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        log.application_bytes.fetch_add(line.len(), Ordering::SeqCst);
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        seen.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    log.application_bytes.fetch_add(length, Ordering::SeqCst);
    seen.body = String::from_utf8(body).unwrap();
    Ok(Some(seen))
}
