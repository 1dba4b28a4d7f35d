//! The connection behind a request: whether its client is still there, and a way to hang up.
//!
//! While an answer is on its way the connection is the HTTP server's, which notices neither by itself: it
//! waits for a client that takes nothing for as long as that likes.

use std::any::Any;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::http::Version;
use actix_web::rt::net::TcpStream as Connection;
use rustix::net::sockopt::set_socket_linger;

/// A second handle of the connection's socket, which is dropped with the connection.
struct Socket(TcpStream);

/// Keeps a handle of a connection that was just accepted.
pub fn keep(connection: &dyn Any, extensions: &mut Extensions) {
    let over_tls = || connection.downcast_ref::<TlsStream<Connection>>().map(|tls| tls.get_ref().0);
    let Some(plain) = connection.downcast_ref::<Connection>().or_else(over_tls) else { return };
    match plain.as_fd().try_clone_to_owned() {
        Ok(handle) => drop(extensions.insert(Arc::new(Socket(handle.into())))),
        // Served all the same: its streams end a little later then.
        Err(error) => tracing::warn!(%error, "a connection cannot be watched"),
    }
}

/// The client at the other end.
#[derive(Clone, Default)]
pub struct Peer {
    socket: Option<Weak<Socket>>,
    /// Whether one answer at a time is on the connection.
    pub is_alone: bool,
}

impl Peer {
    /// The one that a request comes from.
    pub fn of(request: &HttpRequest) -> Self {
        Self {
            socket: request.conn_data::<Arc<Socket>>().map(Arc::downgrade),
            is_alone: request.version() < Version::HTTP_2,
        }
    }

    /// Whether it has closed the connection, or the connection is no more.
    pub fn is_gone(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let Some(socket) = socket.upgrade() else { return true };
        match socket.0.peek(&mut [0]) {
            Ok(read) => read == 0,
            // The socket is one that never waits.
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Ends the connection at once, and with it whatever waits in it for a client that takes nothing.
    pub fn hang_up(&self) {
        let Some(socket) = self.socket.as_ref().and_then(Weak::upgrade) else { return };
        let ended = set_socket_linger(&socket.0, Some(Duration::ZERO))
            .map_err(Into::into)
            .and_then(|()| socket.0.shutdown(Shutdown::Both));
        if let Err(error) = ended {
            // Not connected any more, most likely.
            tracing::debug!(%error, "a connection cannot be ended");
        }
    }
}
