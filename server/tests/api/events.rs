//! The live stream, the history of one application, and the log as it is looked through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proximity_commands::clock::SystemClock;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Kind, Server, on_both};
use crate::world::{Person, World};

/// How often a reader's connection is killed.
const KILLS: usize = 1_000;

/// Messages of one connection: their ids, and the events among them.
struct Stream {
    answer: reqwest::Response,
    rest: String,
}

impl World {
    async fn stream(&self, who: &Person, last: Option<&str>) -> Stream {
        self.stream_of(&self.server, who, last).await
    }

    /// The same at one of several servers.
    async fn stream_of(&self, server: &Server, who: &Person, last: Option<&str>) -> Stream {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let answer = loop {
            let mut request = client
                .get(format!("{}/api/events/stream", server.url))
                .header("accept", "text/event-stream")
                .bearer_auth(&who.token);
            if let Some(last) = last {
                request = request.header("last-event-id", last);
            }
            let answer = request.send().await.unwrap();
            // As many as one may have are open until the server has noticed which ones were killed.
            if answer.status() != 429 || Instant::now() > deadline {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Stream { answer, rest: String::new() }
    }
}

impl Stream {
    /// The next message, with its event unless it is a sign of life; `None` at the end.
    async fn next(&mut self) -> Option<(String, Option<Value>)> {
        let read = async {
            loop {
                if let Some((message, rest)) = self.rest.split_once("\n\n") {
                    let field = |name: &str| {
                        message.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                    };
                    let id = field("id: ").expect("each message has an id");
                    let event = field("data: ").map(|data| serde_json::from_str(&data).unwrap());
                    self.rest = rest.to_owned();
                    return Some((id, event));
                }
                match self.answer.chunk().await {
                    Ok(Some(chunk)) => self.rest.push_str(std::str::from_utf8(&chunk).unwrap()),
                    Ok(None) | Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("nothing for 30 s")
    }

    async fn event(&mut self) -> Value {
        loop {
            if let (_, Some(event)) = self.next().await.expect("the stream ended") {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_off_again_and_again_sees_each_event_once_and_in_order() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        // With PostgreSQL the reader comes back to whichever of two servers.
        let second = match kind {
            Kind::Postgres => Some(world.server.beside(SystemClock::shared()).await),
            Kind::Sqlite => None,
        };
        let servers: Vec<&Server> = std::iter::once(&world.server).chain(&second).collect();
        let start = world.server.app.store.head().await.unwrap();
        let done = AtomicBool::new(false);
        let write = async {
            for turn in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let body = json!({ "first_name": format!("Ann {turn}") });
                let changed = servers[turn % servers.len()]
                    .as_person(&world.owner, Method::PATCH, "/api/auth/user", Some(&body))
                    .await;
                assert_eq!(changed.status, 200, "{}", changed.text);
            }
        };
        let read = async {
            let (mut last, mut seen) = (start, Vec::new());
            for connection in 0..=KILLS {
                let server = servers.choose(&mut rand::rng()).unwrap();
                let last_id = last.to_string();
                let mut stream = world.stream_of(server, &world.owner, Some(&last_id)).await;
                let mut note = |(id, event): (String, Option<Value>)| {
                    last = id.parse().unwrap();
                    if let Some(event) = event {
                        assert_eq!(event["position"].to_string(), id);
                        if event["type"] == "user.profile_changed" {
                            seen.push(last);
                        }
                    }
                };
                if connection < KILLS {
                    // Killed wherever it is, in the middle of a message as well as before the first one.
                    let life = Duration::from_micros(rand::rng().random_range(0..8_000));
                    let reading = async {
                        while let Some(message) = stream.next().await {
                            note(message);
                        }
                    };
                    drop(tokio::time::timeout(life, reading).await);
                } else {
                    // The last one reads what is left.
                    done.store(true, Ordering::Relaxed);
                    let head = world.server.app.store.head().await.unwrap();
                    let newest = async {
                        loop {
                            let message = stream.next().await.expect("the stream ended");
                            let position: u64 = message.0.parse().unwrap();
                            note(message);
                            if position >= head {
                                break;
                            }
                        }
                    };
                    newest.await;
                }
            }
            seen
        };
        let ((), seen) = tokio::join!(write, read);
        let log = world.server.app.store.feed(start, 100_000).await.unwrap();
        let wanted: Vec<u64> = log
            .iter()
            .filter(|event| event.event_type == "user.profile_changed")
            .map(|event| event.position)
            .collect();
        // One change may have been stored since the last reader ended.
        assert_eq!(seen, wanted[..seen.len()]);
        assert!(wanted.len() - seen.len() <= 1, "{} of {}", seen.len(), wanted.len());
        println!(
            "figure: live stream on {kind:?}: {} servers, a reader killed {KILLS} times saw {} events, 0 lost, 0 twice",
            servers.len(),
            seen.len()
        );
        if let Some(second) = second {
            second.stop().await;
        }
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_carries_what_is_the_readers_own_and_ends_with_the_session() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let mut owner = world.stream(&world.owner, None).await;
        let mut other = world.stream(&world.other, None).await;
        let mut admin = world.stream(&world.admin, None).await;
        let id = world.deployed(&world.owner, "web-01").await;
        for reader in [&mut owner, &mut admin] {
            let first = reader.event().await;
            assert!(first["position"].as_u64().is_some());
            while reader.event().await["type"] != "application.deployed" {}
        }
        let sessions = world.get(&world.other, "/api/auth/sessions").await.body;
        let session = sessions["sessions"][0]["id"].as_str().unwrap();
        let path = format!("/api/auth/sessions/{session}");
        world.server.as_person(&world.other, Method::DELETE, &path, None).await;
        // All that the other one was ever sent is about that very session, and the stream is over.
        while let Some((_, event)) = other.next().await {
            assert!(event.is_none(), "{event:?}");
        }
        let beyond = [("authorization", format!("Bearer {}", world.owner.token))];
        let headers = [("authorization", beyond[0].1.as_str()), ("last-event-id", "999999999")];
        let answer = world.server.call(Method::GET, "/api/events/stream", &headers, None).await;
        answer.problem(400, "position.unknown");

        let app = format!("/api/apps/{id}");
        world.server.as_person(&world.owner, Method::DELETE, &app, None).await;
        world.until(&app, |answer| answer.status == 404).await;
        let history = world.get(&world.owner, &format!("{app}/history")).await;
        assert_eq!(history.status, 200, "{}", history.text);
        let types: Vec<&str> = history.body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(types.first(), Some(&"application.requested"));
        for wanted in ["application.deployed", "operation.planned", "application.removed"] {
            assert!(types.contains(&wanted), "{wanted} is not in {types:?}");
        }
        let hidden = format!("{app}/history");
        let person = world.owner.clone();
        let bob = world.server.as_person(&world.admin, Method::GET, &hidden, None).await;
        assert_eq!(bob.status, 200, "{}", bob.text);

        // Page by page it is the same as at once.
        let (mut after, mut paged) = (0, Vec::new());
        loop {
            let path = format!("/api/audit/events?app={id}&limit=3&after={after}");
            let page = world.get(&person, &path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            for event in page.body["events"].as_array().unwrap() {
                paged.push(event["position"].clone());
            }
            after = page.body["next"].as_u64().unwrap();
            if page.body["complete"] == true {
                break;
            }
        }
        let all: Vec<Value> = history.body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["position"].clone())
            .collect();
        assert_eq!(paged, all);
        let mine = world.get(&person, "/api/audit/events?limit=1000").await.body;
        let owner = &history.body["events"][0]["owner"];
        assert!(mine["events"].as_array().unwrap().iter().all(|event| event["owner"] == *owner));
        let hosts = world.get(&world.admin, "/api/audit/events?type=host").await.body;
        assert_eq!(hosts["events"][0]["type"], "host.registered");
        let early = world.get(&world.admin, "/api/audit/events?to=2001-01-01T00:00:00Z").await.body;
        assert_eq!((&early["events"], &early["complete"]), (&json!([]), &json!(true)));
        world.get(&world.admin, "/api/audit/events?from=x").await.problem(400, "query.malformed");
        // Whoever reads does not hold the end up.
        let mut open = world.stream(&world.admin, None).await;
        let began = std::time::Instant::now();
        world.stop().await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        while open.next().await.is_some() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off_and_holds_up_nobody() {
    on_both(async |kind| {
        // More than the buffers on the way from the server to a reader hold.
        const ACTIONS: usize = 3_000;
        let world = World::start(kind).await;
        let open = async || {
            let metrics = world.server.get("/metrics").await.text;
            let line = metrics.lines().find(|line| line.starts_with("proximity_live_streams "));
            line.unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap()
        };
        let mut slow = world.stream(&world.admin, None).await;
        let mut quick = world.stream(&world.admin, None).await;
        let write = world.noise(ACTIONS);
        let read = async {
            let (mut actions, mut last) = (0, None);
            while actions < ACTIONS {
                let event = quick.event().await;
                let position = event["position"].as_u64().unwrap();
                assert!(last.is_none_or(|last| position == last + 1), "{last:?}, {position}");
                last = Some(position);
                actions += usize::from(event["type"] == "admin_action.performed");
            }
        };
        let (head, ()) = tokio::join!(write, read);
        let deadline = Instant::now() + Duration::from_secs(90);
        while open().await > 1 {
            assert!(Instant::now() < deadline, "a reader that takes nothing is not cut off");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It finds what was on its way to it, and goes on from there.
        let mut last = 0;
        while let Some((id, _)) = slow.next().await {
            last = id.parse().unwrap();
        }
        assert!(last < head, "all of it was kept for a reader that took nothing");
        let mut again = world.stream(&world.admin, Some(&last.to_string())).await;
        while last < head {
            let event = again.event().await;
            assert_eq!(event["position"].as_u64().unwrap(), last + 1);
            last += 1;
        }
        drop((quick, again));
        world.stop().await;
    })
    .await;
}
