//! A runner that dies at one step, as by `kill -9`, and a scene that waits until it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proximity_commands::dispatch::AppendFaults;
use proximity_commands::saga::{Hooks, Point};
use proximity_domain::operation::Direction;

use crate::left_over::SOON;

pub(crate) struct DiesAt {
    point: Point,
    step: &'static str,
    died: AtomicBool,
}

impl DiesAt {
    pub(crate) fn new(point: Point, step: &'static str) -> Arc<Self> {
        Arc::new(Self { point, step, died: AtomicBool::new(false) })
    }

    /// Returns once the runner has died there; panics when it does not.
    pub(crate) async fn died(&self) {
        let deadline = Instant::now() + SOON;
        while !self.died.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "{} was not reached", self.step);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl AppendFaults for DiesAt {}

impl Hooks for DiesAt {
    fn dies(&self, point: Point, step: &str, _direction: Direction) -> bool {
        let dies = (point, step) == (self.point, self.step);
        self.died.fetch_or(dies, Ordering::Relaxed);
        dies
    }
}
