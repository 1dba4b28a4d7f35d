//! The unwind matrix: every step of a saga under every fault, and every undo under its own; each
//! cell has its one expected end.

mod cell;
mod check;
mod drive;
mod others;
mod powered;
mod restored;
mod script;
mod touch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

pub use cell::{Cell, Disturbance, End, Saga, all, asked_for, expected};
pub use script::Defect;

/// Cells that run at once: each has a simulator and a store of its own.
const AT_ONCE: usize = 6;

/// What came of a number of cells.
#[derive(Debug, Default)]
pub struct Report {
    pub run: usize,
    /// What is wrong, by cell; empty when nothing is.
    pub failed: BTreeMap<String, Vec<String>>,
    /// Cells by the end that they came to.
    pub ends: BTreeMap<String, usize>,
    /// Resources that were left over, in all cells.
    pub leaked: usize,
    /// Effects that happened twice, in all cells.
    pub doubled: usize,
    /// The highest number of a try, in all cells.
    pub most_tries: u32,
    pub took: Duration,
}

/// Runs the cells, with or without a planted defect.
pub async fn run(cells: Vec<Cell>, defect: Option<Defect>) -> Report {
    let started = Instant::now();
    let mut report = Report::default();
    let mut waiting = cells.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(cell) = waiting.next()
        {
            running.spawn(async move { (cell, drive::run(cell, defect).await) });
        }
        let Some(ran) = running.join_next().await else { break };
        report.run += 1;
        match ran {
            Ok((cell, outcome)) => {
                *report.ends.entry(outcome.end.clone()).or_default() += 1;
                report.leaked += outcome.leaked;
                report.doubled += outcome.doubled;
                report.most_tries = report.most_tries.max(outcome.most_tries);
                if !outcome.complaints.is_empty() {
                    report.failed.insert(cell.to_string(), outcome.complaints);
                }
            }
            // A cell that could not run has failed.
            Err(panic) => {
                report.failed.insert(format!("cell {}", report.run), vec![panic.to_string()]);
            }
        }
    }
    report.took = started.elapsed();
    report
}
