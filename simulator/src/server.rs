//! The HTTPS listener: accepts, shakes hands, and hands each request to the gate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::gate;
use crate::sim::Sim;

/// Requests on one connection before it is closed.
const KEEP_ALIVE: u32 = 100;
/// How long a caller may take to shake hands or to send a request's head.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts until the simulator shuts down.
pub(crate) async fn run(
    sim: Arc<Sim>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    connections: TaskTracker,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let stream = tokio::select! {
            () = sim.shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        sim.seen.connection();
        let (sim, acceptor) = (sim.clone(), acceptor.clone());
        connections.spawn(async move {
            tokio::select! {
                () = sim.shutdown.cancelled() => {}
                () = serve(sim.clone(), stream, acceptor) => {}
            }
        });
    }
}

async fn serve(sim: Arc<Sim>, stream: TcpStream, acceptor: TlsAcceptor) {
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::trace!(%error, "nodelay could not be set");
    }
    let mut first = [0u8; 1];
    match tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await {
        // A TLS handshake starts with record type 22.
        Ok(Ok(1)) if first[0] != 22 => redirect_all(stream, local).await,
        Ok(Ok(1)) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                sim.seen.handshake(true);
                speak(sim, stream).await;
            }
            _ => sim.seen.handshake(false),
        },
        _ => {}
    }
}

async fn speak(sim: Arc<Sim>, stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let count = Arc::new(AtomicU32::new(0));
    let service = service_fn(move |request| {
        let (sim, count) = (sim.clone(), count.clone());
        async move {
            let mut response = Box::pin(gate::answer(sim, request)).await?;
            if count.fetch_add(1, Ordering::Relaxed) + 1 >= KEEP_ALIVE {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, gate::Cut>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

async fn redirect_all(stream: TcpStream, local: SocketAddr) {
    let service = service_fn(move |request| {
        let response = gate::redirect(&request, local);
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a plain connection ended early");
    }
}
