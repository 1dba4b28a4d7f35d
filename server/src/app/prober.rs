//! Knocks at a container's port, for health checks.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use proximity_commands::ports::Prober;
use tokio::net::TcpStream;

/// The deadline of one knock.
const KNOCK: Duration = Duration::from_secs(5);

/// Knocks over the network of this machine.
pub struct Knocker;

#[async_trait]
impl Prober for Knocker {
    async fn http(&self, at: SocketAddr, path: &str) -> Result<u16, String> {
        in_time(get(at, path)).await
    }

    async fn tcp(&self, at: SocketAddr) -> Result<(), String> {
        in_time(async { TcpStream::connect(at).await.map(drop).map_err(told) }).await
    }
}

async fn in_time<T>(knock: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(KNOCK, knock).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// The status is all that is asked for: neither body nor redirects are followed.
async fn get(at: SocketAddr, path: &str) -> Result<u16, String> {
    let stream = TcpStream::connect(at).await.map_err(told)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let request = Request::get(path)
        .header(HOST, at.to_string())
        .header(USER_AGENT, "proximity")
        .body(Empty::<Bytes>::new())
        .map_err(told)?;
    let exchange = async move { sender.send_request(request).await };
    tokio::pin!(exchange, connection);
    // The connection is driven here and ends with this call.
    tokio::select! {
        answer = &mut exchange => answer.map(|answer| answer.status().as_u16()).map_err(told),
        ended = &mut connection => {
            ended.map_err(told)?;
            exchange.await.map(|answer| answer.status().as_u16()).map_err(told)
        }
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
