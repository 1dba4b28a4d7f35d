//! One figure of the benchmark, and how the writer's own figures are taken.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use proximity_eventstore::{Append, Expected, Lane, NewEvent, Store, StreamAppend};
use uuid::Uuid;

/// Bytes like those of a small event of ours.
pub const PAYLOAD: &str =
    r#"{"operation":"0190d3f0-6a5e-7c11-9d2e-5f1d8a3b7c42","step":"create_container","attempt":1}"#;
pub const METADATA: &str = r#"{"actor":"0190d3f0-6a5e-7c11-9d2e-000000000001","request":"0190d3f0-6a5e-7c11-9d2e-000000000002","command":"apps.create"}"#;
pub const EVENT_TYPE: &str = "operation.step_intended";

/// Appends counted over a time.
#[derive(Default)]
pub struct Cell {
    pub appends: u64,
    pub batches: u64,
    pub time: Duration,
}

impl Cell {
    /// Appends per second.
    pub fn rate(&self) -> f64 {
        as_f64(self.appends) / self.time.as_secs_f64()
    }

    /// Mean appends in a batch, at least 1.
    pub fn batch(&self) -> usize {
        let mean = (self.appends + self.batches / 2) / self.batches.max(1);
        usize::try_from(mean).unwrap().max(1)
    }
}

impl AddAssign for Cell {
    fn add_assign(&mut self, other: Self) {
        self.appends += other.appends;
        self.batches += other.batches;
        self.time += other.time;
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.rate())?;
        if self.batch() > 1 { write!(f, " (by {})", self.batch()) } else { Ok(()) }
    }
}

/// `callers` tasks, each appending to its own stream as fast as it is answered.
pub async fn through_the_writer(store: &Store, callers: usize, time: Duration) -> Cell {
    let before = store.stats();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                let id = Uuid::now_v7().to_string();
                let mut sequence = 0;
                while begun.elapsed() < time {
                    let append = Append {
                        id: Uuid::now_v7(),
                        lane: Lane::User(format!("caller-{caller}")),
                        streams: vec![StreamAppend {
                            metadata: None,
                            aggregate_type: "operation".to_owned(),
                            aggregate_id: id.clone(),
                            expected: Expected::At(sequence),
                            events: vec![NewEvent {
                                event_type: EVENT_TYPE.to_owned(),
                                event_version: "1".to_owned(),
                                payload: PAYLOAD.to_owned(),
                            }],
                        }],
                        assertions: vec![],
                        side: vec![],
                        metadata: METADATA.to_owned(),
                        fence: None,
                        idempotency: None,
                    };
                    store.append(append).await.unwrap();
                    sequence += 1;
                }
                sequence
            })
        })
        .collect();
    let mut appends = 0;
    for task in tasks {
        appends += task.await.unwrap();
    }
    Cell { appends, batches: store.stats().batches - before.batches, time: begun.elapsed() }
}

fn as_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}
