//! Readers of the live stream that lose their rights, go away, or take nothing, as the server sees them:
//! by their sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_commands::clock::{AheadClock, SECOND};
use proximity_server::demo::generated_password;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::Kind;
use crate::world::{Person, World};

impl World {
    /// A stream from the beginning of the log, by a client that has asked and read nothing yet.
    pub async fn asked(&self, who: &Person) -> TcpStream {
        let address = self.server.url.trim_start_matches("http://").parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!(
            "GET /api/events/stream?after=0 HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\
             authorization: Bearer {}\r\n\r\n",
            who.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// How many streams the server says are open.
    pub async fn open_streams(&self) -> usize {
        let metrics = self.server.get("/metrics").await.text;
        let line = metrics.lines().find(|line| line.starts_with("proximity_live_streams "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until so many are open.
    pub async fn until_open(&self, wanted: usize, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let open = self.open_streams().await;
            if open == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{open} streams are open, not {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Reads what comes until there is an end, or nothing for three seconds; how many bytes it was.
async fn rest(stream: &mut TcpStream) -> usize {
    let (mut all, mut part) = (0, vec![0; 65_536]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut part)).await;
        match read {
            Ok(Ok(some)) if some > 0 => all += some,
            _ => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_disabled_or_demoted_far_behind_the_end_of_the_log_reads_no_further() {
    let world = World::start(Kind::Sqlite).await;
    let mut readers = Vec::new();
    for (name, change) in
        [("eve", json!({ "disabled": true })), ("may", json!({ "is_staff": false }))]
    {
        let password = generated_password();
        let body = json!({ "username": name, "password": password, "is_staff": true });
        let made = world.post(&world.admin, "/api/users", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let path = format!("/api/users/{}", made.body["id"]);
        readers.push((world.server.sign_in(name, &password).await, path, change));
    }
    // Each event has more than 8 KB.
    const EVENTS: usize = 4_000;
    world.noise(EVENTS).await;
    for (reader, path, change) in readers {
        let mut stream = world.asked(&reader).await;
        stream.read_exact(&mut [0; 65_536]).await.unwrap();
        let changed =
            world.server.as_person(&world.admin, Method::PATCH, &path, Some(&change)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        let read = rest(&mut stream).await;
        println!("figure: {change}: {} KiB of {} KiB were on their way", read >> 10, EVENTS * 8);
        assert!(read < EVENTS * 4_000, "{change}: {read} bytes came afterwards");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_token_of_its_reader_does() {
    let clock = Arc::new(AheadClock::default());
    let world = World::start_by(Kind::Sqlite, clock.clone()).await;
    let mut stream = world.asked(&world.owner).await;
    stream.read_exact(&mut [0; 12]).await.unwrap();
    world.until_open(1, Duration::from_secs(10)).await;
    clock.skip(3_601 * SECOND);
    // Long before the next sign of life.
    world.until_open(0, Duration::from_secs(5)).await;
    rest(&mut stream).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_gives_the_place_back_at_once() {
    let world = World::start(Kind::Sqlite).await;
    for _ in 0..3 {
        let mut open = Vec::new();
        for _ in 0..16 {
            let mut stream = world.asked(&world.owner).await;
            // All there is up to the first sign of life: a socket with something unread would be reset.
            let mut read = Vec::new();
            while !read.ends_with(b": alive\n\n\r\n") {
                assert!(stream.read_buf(&mut read).await.unwrap() > 0, "it ended");
            }
            assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
            open.push(stream);
        }
        drop(open);
        // Long before the next sign of life would tell.
        world.until_open(0, Duration::from_secs(6)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_stream_takes_no_place() {
    let world = World::start(Kind::Sqlite).await;
    let bearer = format!("Bearer {}", world.owner.token);
    let headers = [("authorization", bearer.as_str())];
    for _ in 0..20 {
        let call = world.server.call(Method::HEAD, "/api/events/stream", &headers, None);
        let answer = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap();
        assert_eq!(answer.header("content-type"), "text/event-stream");
        world.until_open(0, Duration::from_secs(5)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_off_is_closed_and_room_for_another_one() {
    // As many as one person's streams, and one more.
    let world = World::start_with(Kind::Sqlite, |config| {
        config.server.workers = 1;
        config.server.max_connections = 24;
    })
    .await;
    world.noise(3_000).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(world.asked(&world.admin).await);
    }
    world.until_open(16, Duration::from_secs(20)).await;
    world.until_open(0, Duration::from_secs(90)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    for stream in &slow {
        while stream.take_error().unwrap().is_none() {
            assert!(Instant::now() < deadline, "a connection that takes nothing is kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The same again: none of the first ones stands in its way.
    let mut more = Vec::new();
    for _ in 0..16 {
        more.push(world.asked(&world.admin).await);
    }
    world.until_open(16, Duration::from_secs(20)).await;
    assert_eq!(world.server.get("/healthz").await.status, 200);
    drop((slow, more));
    world.stop().await;
}
