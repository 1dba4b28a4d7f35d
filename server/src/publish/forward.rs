//! One published port: accepts connections and passes their bytes on, both ways.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{Face, Target, embed};

/// Connections to one port at once; more wait in the kernel's queue.
const MOST: usize = 2_048;
/// How long the container may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A pause after an accept that failed: out of file descriptors, usually.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts until it is dropped; the connections that it has accepted end with it. `all` has a place
/// for each connection to any port.
pub(super) async fn serve(
    listener: TcpListener,
    target: watch::Receiver<Target>,
    all: Arc<Semaphore>,
) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = listener.accept().await;
        // Taken once somebody is there: a port that nobody asks for holds no place of the others.
        let Ok(among_all) = Arc::clone(&all).acquire_owned().await else { return };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to a published port was not accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let target = target.borrow().clone();
        connections.spawn(async move {
            let _places = (place, among_all);
            let passed = match target.face {
                Face::Public => pass(stream, &target).await,
                Face::Embedded => embed::serve(stream, target.clone()).await,
            };
            if let Err(error) = passed {
                tracing::debug!(application = target.application, %error,
                    "a published connection ended early");
            }
        });
    }
}

/// Byte for byte.
async fn pass(mut stream: TcpStream, target: &Target) -> std::io::Result<()> {
    let mut container = connect(target).await?;
    copy_bidirectional(&mut stream, &mut container).await.map(drop)
}

/// A connection to the container.
pub(super) async fn connect(target: &Target) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(target.to))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
