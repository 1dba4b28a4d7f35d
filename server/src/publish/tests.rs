//! That bytes and pages reach a container, and that a listener follows its application.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// A container that answers each connection with one page that forbids framing.
async fn container(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Frame-Options: DENY\r\nX-Kept: yes\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

async fn listening(face: Face, to: SocketAddr) -> (SocketAddr, watch::Sender<Target>) {
    listening_among(face, to, Arc::new(Semaphore::new(100))).await
}

async fn listening_among(
    face: Face,
    to: SocketAddr,
    places: Arc<Semaphore>,
) -> (SocketAddr, watch::Sender<Target>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Target { application: "a-00000000".to_owned(), to, face };
    let (sender, receiver) = watch::channel(target);
    tokio::spawn(forward::serve(listener, receiver, places));
    (address, sender)
}

async fn page(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_lowercase()
}

#[tokio::test]
async fn the_public_face_passes_everything_on_and_the_embedded_one_allows_framing() {
    let to = container("hello").await;
    let (public, _keep) = listening(Face::Public, to).await;
    let answer = page(public).await;
    assert!(answer.contains("x-frame-options: deny") && answer.ends_with("hello"), "{answer}");
    let (embedded, _keep) = listening(Face::Embedded, to).await;
    let answer = page(embedded).await;
    assert!(!answer.contains("x-frame-options"), "{answer}");
    assert!(answer.contains("x-kept: yes") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_listener_follows_its_application_to_another_address() {
    let (old, new) = (container("old").await, container("new").await);
    let (address, target) = listening(Face::Public, old).await;
    assert!(page(address).await.ends_with("old"));
    target.send_modify(|target| target.to = new);
    assert!(page(address).await.ends_with("new"));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_of_all_ports_waits_until_another_ends() {
    // One that accepts and says nothing, and one that would answer at once.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let places = Arc::new(Semaphore::new(1));
    let (to, answering) = (silent.local_addr().unwrap(), container("hello").await);
    let (one, _keep) = listening_among(Face::Public, to, places.clone()).await;
    let (other, _keep) = listening_among(Face::Public, answering, places.clone()).await;
    let first = TcpStream::connect(one).await.unwrap();
    while places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(page(other));
    let waited = tokio::time::timeout(Duration::from_millis(200), async {
        while !second.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_err(), "it was served beside the only one that may be");
    drop((first, silent));
    assert!(second.await.unwrap().ends_with("hello"));
}

#[tokio::test]
async fn an_application_that_does_not_answer_is_a_502_in_the_embedded_view() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (address, _keep) = listening(Face::Embedded, gone).await;
    assert!(page(address).await.starts_with("http/1.1 502"));
}

#[test]
fn the_host_of_a_url_is_the_one_that_was_asked() {
    for (header, host) in
        [("box.lan:7800", "box.lan"), ("box.lan", "box.lan"), ("[::1]:7800", "[::1]")]
    {
        assert_eq!(host_of(header), host);
    }
}
