//! What runs inside a started container: an address in 127.0.0.0/8 and listeners on its application's ports.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{GuestPorts, Speaks};

/// The addresses that containers of any simulator in this process hold.
static TAKEN: LazyLock<Mutex<HashSet<Ipv4Addr>>> = LazyLock::new(Mutex::default);

/// How many addresses are tried before a guest gives up; each try asks the kernel.
const TRIES: usize = 200;

/// What a guest is called; its page says so.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) vmid: u32,
    pub(crate) hostname: String,
    pub(crate) image: String,
}

/// The address that a guest is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No IPv4 at all.
    None,
    /// Any free one, the former one if it still is.
    Dhcp(Option<Ipv4Addr>),
    /// This one; outside 127.0.0.0/8 nobody can listen on it here.
    Static(Ipv4Addr),
}

/// A started guest.
pub(crate) struct Guest {
    pub(crate) address: Option<Ipv4Addr>,
    /// The ports that are open.
    pub(crate) ports: Vec<u16>,
    /// Why others are not.
    pub(crate) error: Option<String>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _hold: Option<Hold>,
}

/// Keeps an address from other containers of this process as long as it lives.
struct Hold(Ipv4Addr);

impl Drop for Hold {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn hold(address: Ipv4Addr) -> Option<Hold> {
    let fresh = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    fresh.then_some(Hold(address))
}

/// The ports of an image: those of every entry whose text is part of it.
pub(crate) fn ports_of(table: &[GuestPorts], image: &str) -> Vec<(u16, Speaks)> {
    let mut ports: Vec<(u16, Speaks)> = Vec::new();
    for entry in table.iter().filter(|entry| image.contains(&entry.image_contains)) {
        for port in &entry.ports {
            if !ports.iter().any(|(known, _)| *known == port.0) {
                ports.push(*port);
            }
        }
    }
    ports
}

/// A random address of 127.64.0.0/10.
fn random_address() -> Ipv4Addr {
    let [a, b, c]: [u8; 3] = rand::rng().random();
    Ipv4Addr::new(127, 64 | (a & 0x3f), b, c.clamp(1, 254))
}

struct Bound {
    listeners: Vec<(TcpListener, u16, Speaks)>,
    error: Option<String>,
    /// Somebody else has a port of this address, so that another address may do better.
    occupied: bool,
}

async fn bind(address: Ipv4Addr, ports: &[(u16, Speaks)]) -> Bound {
    let mut bound = Bound { listeners: Vec::new(), error: None, occupied: false };
    for (port, speaks) in ports {
        match TcpListener::bind(SocketAddr::new(IpAddr::V4(address), *port)).await {
            Ok(listener) => bound.listeners.push((listener, *port, *speaks)),
            Err(error) => {
                bound.occupied |= error.kind() == std::io::ErrorKind::AddrInUse;
                let hint = if error.kind() == std::io::ErrorKind::PermissionDenied && *port < 1024 {
                    ": ports below 1024 need root, or a lower net.ipv4.ip_unprivileged_port_start"
                } else {
                    ""
                };
                let text = format!("{address}:{port}: {error}{hint}");
                bound.error = Some(match bound.error.take() {
                    Some(before) => format!("{before}; {text}"),
                    None => text,
                });
            }
        }
    }
    bound
}

impl Guest {
    /// Starts a guest. It always starts; what keeps it from listening stands in `error`.
    pub(crate) async fn start(identity: Identity, wanted: Wanted, ports: &[(u16, Speaks)]) -> Self {
        let (address, bound, hold) = match wanted {
            Wanted::None => {
                let error = (!ports.is_empty()).then(|| "the guest has no IPv4 address".to_owned());
                (None, Bound { listeners: Vec::new(), error, occupied: false }, None)
            }
            Wanted::Static(address) if !address.is_loopback() => {
                let error = format!("{address} is outside 127.0.0.0/8: shown, not listened on");
                let bound = Bound { listeners: Vec::new(), error: Some(error), occupied: false };
                (Some(address), bound, None)
            }
            Wanted::Static(address) => (Some(address), bind(address, ports).await, hold(address)),
            Wanted::Dhcp(former) => lease(former, ports).await,
        };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let open = bound.listeners.iter().map(|(_, port, _)| *port).collect();
        for (listener, _, speaks) in bound.listeners {
            tasks.spawn(accept(listener, speaks, identity.clone(), stop.clone(), tasks.clone()));
        }
        Self { address, ports: open, error: bound.error, stop, tasks, _hold: hold }
    }

    /// Closes every port and connection, and returns when they are closed.
    pub(crate) async fn halt(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn lease(
    former: Option<Ipv4Addr>,
    ports: &[(u16, Speaks)],
) -> (Option<Ipv4Addr>, Bound, Option<Hold>) {
    let candidates = former.into_iter().chain(std::iter::repeat_with(random_address));
    for address in candidates.take(TRIES) {
        let Some(hold) = hold(address) else { continue };
        let bound = bind(address, ports).await;
        if !bound.occupied {
            return (Some(address), bound, Some(hold));
        }
    }
    let error = Some(format!("no free address was found in {TRIES} tries"));
    (None, Bound { listeners: Vec::new(), error, occupied: true }, None)
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    identity: Identity,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: the next connection may fare better.
                    tracing::debug!(%error, vmid = identity.vmid, "a guest could not accept");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let (identity, stop) = (identity.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(stream, speaks, identity) => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, speaks: Speaks, identity: Identity) {
    match speaks {
        Speaks::Http => {
            let service = service_fn(move |_| {
                let page = page(&identity);
                async move { Ok::<_, std::convert::Infallible>(page) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::trace!(%error, "a visitor of a guest left");
            }
        }
        Speaks::Tcp => echo(stream).await,
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0u8; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn page(identity: &Identity) -> hyper::Response<Full<Bytes>> {
    let Identity { vmid, hostname, image } = identity;
    let (hostname, image) = (escape(hostname), escape(image));
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{hostname}</title></head>\n\
         <body><h1>{hostname}</h1>\n<p>Container <b>{vmid}</b>, made from <code>{image}</code>, \
         answers from the simulator.</p></body></html>\n"
    );
    let mut response = hyper::Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // As an application that is not to be framed says it, in the old way and in the new one.
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let policy = "default-src 'self'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
