//! The unwind matrix over real HTTPS: every step under every fault, every undo under its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_tests::figure;
use proximity_tests::matrix::{Cell, Defect, Disturbance, Saga, all, asked_for, run};

/// Set to a part of a cell's name to run only the cells that contain it.
const ONLY: &str = "PROXIMITY_MATRIX_ONLY";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_step_under_every_fault_comes_to_its_one_expected_end() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let cells: Vec<Cell> =
        all().into_iter().filter(|cell| cell.to_string().contains(&only)).collect();
    if only.is_empty() {
        assert_eq!(cells.len(), asked_for(), "a step was forgotten");
    }
    let count = cells.len();
    let report = run(cells, None).await;
    for (cell, complaints) in &report.failed {
        eprintln!("{cell}:");
        complaints.iter().for_each(|complaint| eprintln!("    {complaint}"));
    }
    figure!(
        "unwind matrix: {} cells run, {} failed, {} leaked, {} doubled, most tries {}, ends {:?}, {:.1} s",
        report.run,
        report.failed.len(),
        report.leaked,
        report.doubled,
        report.most_tries,
        report.ends,
        report.took.as_secs_f64()
    );
    assert_eq!(report.run, count, "cells that could not run");
    assert!(report.failed.is_empty(), "{} of {count} cells failed", report.failed.len());
    assert_eq!((report.leaked, report.doubled), (0, 0));
}

/// The cells of one fault, over all steps.
fn of(disturbance: Disturbance) -> Vec<Cell> {
    all().into_iter().filter(|cell| cell.disturbance == disturbance).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_engine_that_never_retries_is_found_in_every_cell_of_a_passing_fault() {
    // These only look, and a look is repeated by the client itself.
    let looks =
        |cell: &Cell| matches!(cell.step, "wait_healthy" | "check_backup" | "check_archive");
    let cells: Vec<Cell> =
        of(Disturbance::Forward(2)).into_iter().filter(|cell| !looks(cell)).collect();
    let count = cells.len();
    let report = run(cells, Some(Defect::NeverRetries)).await;
    figure!(
        "unwind matrix, engine that never retries: {} of {count} cells fail",
        report.failed.len()
    );
    assert_eq!(report.failed.len(), count, "{:#?}", report.failed.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_undo_that_does_nothing_is_found() {
    let undone = |saga, step| {
        all()
            .into_iter()
            .filter(move |cell| {
                cell.saga == saga && cell.step == step && cell.disturbance == Disturbance::Undo(4)
            })
            .collect::<Vec<_>>()
    };
    for (saga, step) in [
        (Saga::Template, "create_container"),
        (Saga::Image, "create_container"),
        (Saga::Delete, "stop"),
        (Saga::Delete, "unprotect"),
        (Saga::Backup, "create_backup"),
        (Saga::CloneLive, "snapshot_source"),
        (Saga::CloneLive, "clone_container"),
        (Saga::CloneDown, "stop_source"),
        (Saga::Adopt, "mark_container"),
        (Saga::Restore, "restore_container"),
        (Saga::Restore, "stop_original"),
        (Saga::RestoreInPlace, "unprotect_original"),
    ] {
        let report = run(undone(saga, step), Some(Defect::SkipsUndo(step))).await;
        figure!(
            "unwind matrix, {saga:?} without the undo of {step}: {} of 1 cell fails",
            report.failed.len()
        );
        assert_eq!(report.failed.len(), 1, "{saga:?} {step}");
    }
}
