//! The faults that are not the simulator's: deaths of the runner, trouble with the database, undos
//! that fail without asking anybody, and defects planted to see the matrix find them.

use std::sync::Mutex;
use std::time::Duration;

use proximity_commands::dispatch::AppendFaults;
use proximity_commands::saga::{Hooks, Point};
use proximity_domain::operation::Direction;
use proximity_eventstore::{Append, AppendError};
use tokio::sync::Notify;

use super::cell::{Cell, Disturbance};
use super::touch;

/// A mistake in the engine that the matrix has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    NeverRetries,
    /// This step's undo does nothing and says that it did.
    SkipsUndo(&'static str),
}

/// What is to happen in one cell.
pub struct Script {
    cell: Cell,
    defect: Option<Defect>,
    state: Mutex<State>,
    pub died: Notify,
    /// The struck step was intended: its effect is about to begin.
    pub begun: Notify,
}

#[derive(Default)]
struct State {
    /// Where the runner dies, once.
    death: Option<(Point, &'static str, Direction)>,
    /// How often an undo that asks nobody still fails.
    failures: u32,
    /// Kinds of events of the step that were struck already.
    struck: Vec<String>,
    fired: u32,
}

impl Script {
    pub fn new(cell: Cell, defect: Option<Defect>) -> Self {
        let step = cell.step;
        let act = |point| Some((point, step, Direction::Act));
        let death = match cell.disturbance {
            Disturbance::Forward(13) => act(Point::BeforeIntent),
            Disturbance::Forward(14) => act(Point::AfterIntent),
            Disturbance::Forward(15) => act(Point::AfterEffect),
            Disturbance::Forward(16) => act(Point::AfterOutcome),
            Disturbance::Forward(_) => None,
            // An undo is reached by a death right before the end, and a cancellation after it.
            Disturbance::Undo(_) => {
                Some((Point::AfterEffect, cell.turning_point(), Direction::Act))
            }
        };
        let failures = match cell.disturbance {
            Disturbance::Forward(_) if !touch::asks_nobody(cell) => 0,
            Disturbance::Forward(1) => u32::MAX,
            Disturbance::Forward(3) => 3,
            Disturbance::Forward(2 | 4..=12) => 1,
            Disturbance::Forward(_) | Disturbance::Undo(_) => 0,
        };
        let state = Mutex::new(State { death, failures, ..State::default() });
        Self { cell, defect, state, died: Notify::new(), begun: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on the undo's own fault strikes.
    pub fn arm_undo(&self) {
        let asks_nobody = touch::asks_nobody(self.cell);
        let mut state = self.state();
        state.fired = 0;
        let step = self.cell.step;
        let die = |point| Some((point, step, Direction::Undo));
        match self.cell.disturbance {
            Disturbance::Undo(1) if asks_nobody => state.failures = 1,
            Disturbance::Undo(2) if asks_nobody => state.failures = 3,
            // Run twice: the first time nobody learns that it was.
            Disturbance::Undo(3) if asks_nobody => state.death = die(Point::AfterEffect),
            Disturbance::Undo(4) if asks_nobody => state.death = die(Point::AfterIntent),
            Disturbance::Undo(4) => state.death = die(Point::AfterEffect),
            Disturbance::Undo(5) if asks_nobody => state.failures = u32::MAX,
            Disturbance::Undo(_) | Disturbance::Forward(_) => {}
        }
    }

    /// The fault is over.
    pub fn lift(&self) {
        self.state().failures = 0;
    }

    /// How often something of this script struck.
    pub fn fired(&self) -> u32 {
        self.state().fired
    }

    /// Strikes once for the intent and once for the outcome of the step.
    fn strikes(&self, fault: u8, times: usize, append: &Append) -> bool {
        if self.cell.disturbance != Disturbance::Forward(fault) {
            return false;
        }
        let step = format!("\"step\":\"{}\"", self.cell.step);
        let ours = append.streams.iter().flat_map(|stream| &stream.events).find(|event| {
            ["operation.step_intended", "operation.step_succeeded"]
                .contains(&event.event_type.as_str())
                && event.payload.contains(&step)
                && event.payload.contains("\"direction\":\"act\"")
        });
        let Some(event) = ours else { return false };
        let mut state = self.state();
        let before = state.struck.iter().filter(|kind| **kind == event.event_type).count();
        if before >= times {
            return false;
        }
        state.struck.push(event.event_type.clone());
        state.fired += 1;
        true
    }
}

impl AppendFaults for Script {
    fn before(&self, append: &Append) -> Option<AppendError> {
        if self.strikes(17, 1, append) {
            return Some(AppendError::Conflict {
                aggregate_type: "operation".to_owned(),
                aggregate_id: "another was faster".to_owned(),
                expected: 1,
                actual: 2,
            });
        }
        self.strikes(18, 2, append).then(|| AppendError::Unavailable {
            reason: "the script keeps the database away".to_owned(),
            retry_after: Duration::from_millis(1),
        })
    }

    fn after(&self, append: &Append) -> Option<AppendError> {
        self.strikes(19, 1, append).then_some(AppendError::Unknown)
    }
}

impl Hooks for Script {
    fn dies(&self, point: Point, step: &str, direction: Direction) -> bool {
        if point == Point::AfterIntent && step == self.cell.step && direction == Direction::Act {
            self.begun.notify_one();
        }
        let mut state = self.state();
        let now =
            state.death.is_some_and(|(at, of, way)| at == point && of == step && way == direction);
        if now {
            state.death = None;
            state.fired += 1;
            self.died.notify_one();
        }
        now
    }

    fn fails(&self, step: &str, direction: Direction) -> bool {
        let struck = match self.cell.disturbance {
            Disturbance::Forward(_) => Direction::Act,
            Disturbance::Undo(_) => Direction::Undo,
        };
        if direction != struck || step != self.cell.step {
            return false;
        }
        let mut state = self.state();
        if state.failures == 0 {
            return false;
        }
        state.failures -= 1;
        state.fired += 1;
        true
    }

    fn skips_undo(&self, step: &str) -> bool {
        self.defect == Some(Defect::SkipsUndo(named(step)))
    }

    fn never_retries(&self) -> bool {
        self.defect == Some(Defect::NeverRetries)
    }
}

/// The name as the lists of steps hold it.
fn named(step: &str) -> &'static str {
    super::cell::all().into_iter().map(|cell| cell.step).find(|name| *name == step).unwrap_or("")
}
