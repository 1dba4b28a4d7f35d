//! Refused calls by the thousand: each is noted, and all of them together leave a few events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_commands::clock::{AheadClock, Clock as _, SECOND};
use proximity_domain::refusal::{Event, STREAM};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Kind, on_both};
use crate::world::{Person, World};

/// Refused calls of one caller.
const CALLS: usize = 10_000;
/// Calls that are sent before their answers are read.
const AT_ONCE: usize = 50;
/// The most events that they may leave: six for each of two codes, for as many minutes as this may take,
/// and one of somebody else.
const MOST: usize = 12 * 10 + 1;

/// Sends one call again and again over one connection, and counts the answers by their status.
async fn again_and_again(
    world: &World,
    who: &Person,
    call: &str,
    body: &str,
    times: usize,
) -> usize {
    let address = world.server.url.trim_start_matches("http://").to_owned();
    let call = format!(
        "{call} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        who.token,
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let mut refused = 0;
    for _ in 0..times / AT_ONCE {
        stream.write_all(call.repeat(AT_ONCE).as_bytes()).await.unwrap();
        let (mut answers, mut buffer) = (String::new(), vec![0; 64 << 10]);
        // The last answer has arrived in full when as many bodies as heads have ended.
        while answers.matches("\"request_id\"").count() < AT_ONCE || !answers.ends_with('}') {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the server has hung up after {answers}");
            answers.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        refused += answers.matches("HTTP/1.1 403 ").count();
        refused += answers.matches("HTTP/1.1 404 ").count();
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refused_calls_leave_a_few_events() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let before = world.server.app.store.head().await.unwrap();
        let calls = [
            ("POST /api/catalog/reload", "{}"),
            ("DELETE /api/proxmox/hosts/1", ""),
            ("POST /api/apps/nginx-00000000/action", r#"{"action":"stop"}"#),
            ("DELETE /api/backup-schedules/1000000", ""),
        ];
        let started = Instant::now();
        let sent = calls.map(|(call, body)| {
            again_and_again(&world, &world.other, call, body, CALLS / calls.len())
        });
        let refused: usize = futures_util::future::join_all(sent).await.iter().sum();
        let took = started.elapsed();
        assert_eq!(refused, CALLS);
        // Somebody else is refused once: that is an event of its own.
        let other = world.post(&world.owner, "/api/catalog/reload", &json!({})).await;
        other.problem(403, "admin.required");
        world.server.app.refusals.flush_all().await.unwrap();

        let after = world.server.app.store.feed(before, 100_000).await.unwrap();
        let (mut events, mut times, mut callers) = (0, 0, BTreeSet::new());
        for event in after.iter().filter(|event| event.aggregate_type == STREAM) {
            let Event::Counted(counted) = serde_json::from_str(&event.payload).unwrap();
            events += 1;
            times += counted.times;
            callers.insert(counted.caller);
        }
        println!(
            "figure: {CALLS} refused calls of one caller on {kind:?}: {events} events in all, one of \
             them of another caller, {times} refusals counted in them, {took:?}"
        );
        assert_eq!(callers.len(), 2, "{callers:?}");
        assert_eq!(times, CALLS as u64 + 1, "each refusal is counted once");
        assert!(events <= MOST, "{events} events");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_in_the_log_as_soon_as_its_minute_is_over() {
    // Its end is near, and before that of anything else that is done now and then.
    let clock = Arc::new(AheadClock::default());
    clock.skip((45 * SECOND - clock.now().rem_euclid(60 * SECOND)).rem_euclid(60 * SECOND));
    let began = Instant::now();
    let world = World::start_by(Kind::Sqlite, clock.clone()).await;
    let answer = world.post(&world.owner, "/api/catalog/reload", &json!({})).await;
    answer.problem(403, "admin.required");
    let path = "/api/audit/events?type=refusal.counted";
    let deadline = began + Duration::from_secs(25);
    while world.get(&world.admin, path).await.body["events"] == json!([]) {
        assert!(Instant::now() < deadline, "it is not in the log");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.stop().await;
}
