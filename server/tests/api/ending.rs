//! The end of a server: what is idle does not hold it up, and what cannot be parsed is answered.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::Server;

fn connected(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends a request that keeps its connection, and reads the whole answer.
fn kept_alive(server: &Server) -> TcpStream {
    let mut stream = connected(server);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = String::from_utf8(read.clone()).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_idle_silent_or_half_asked_do_not_hold_the_end_up() {
    let server = Server::start().await;
    let mut open: Vec<TcpStream> = (0..20).map(|_| kept_alive(&server)).collect();
    open.extend((0..5).map(|_| connected(&server)));
    let mut half = connected(&server);
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost:").unwrap();
    open.push(half);
    let began = Instant::now();
    server.stop().await;
    let took = began.elapsed();
    println!(
        "figure: a stop with {} idle, silent or half-asked connections: {} ms",
        open.len(),
        took.as_millis()
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    for mut stream in open {
        let mut rest = Vec::new();
        // Closed or reset: both say that nobody is there.
        if stream.read_to_end(&mut rest).is_ok() {
            assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_answered_once_and_its_connection_ends() {
    let server = Server::start().await;
    for garbage in [
        "NONSENSE\r\n\r\n",
        "GET /healthz HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    ] {
        let mut stream = connected(&server);
        stream.write_all(garbage.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}
