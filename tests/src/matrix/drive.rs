//! Runs one cell: a site of its own, the fault, restarts after deaths, an operator when it is stuck.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_commands::Actor;
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::saga::{RunnerHandle, SagaConfig};
use proximity_domain::operation::{Command as Op, Operation, Phase};
use proximity_domain::plan::{Kind, RestoreWay};
use proximity_domain::{ApplicationId, OperationId, UserId};
use proximity_simulator::{GuestPorts, Ledger, Speaks};
use tempfile::TempDir;

use super::cell::{Cell, Disturbance, End, Saga, expected};
use super::script::{Defect, Script};
use super::touch;
use super::{check, others};
use crate::rig::{Rig, quick};

/// Longer than any cell takes on a busy machine; one that is not over by then hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What one cell came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub end: String,
    pub complaints: Vec<String>,
    pub leaked: usize,
    pub doubled: usize,
    pub most_tries: u32,
}

/// The site of one cell.
pub struct Site {
    _folder: TempDir,
    pub rig: Rig,
    pub script: Arc<Script>,
    pub application: ApplicationId,
    pub operation: OperationId,
    /// Before anything was there.
    pub empty: Ledger,
    /// Before the operation began.
    pub before: Ledger,
    /// The application that is copied.
    pub source: Option<ApplicationId>,
}

fn limits() -> SagaConfig {
    SagaConfig {
        task_patience: Duration::from_millis(250),
        disks_patience: Duration::from_millis(250),
        address_patience: Duration::from_millis(500),
        ..quick()
    }
}

/// Runs one cell and says what is wrong with it.
pub async fn run(cell: Cell, defect: Option<Defect>) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let ports =
        GuestPorts { image_contains: "nginx".to_owned(), ports: vec![(18_080, Speaks::Http)] };
    let answer = Duration::from_secs(1);
    let rig = Rig::with(folder.path(), limits(), answer, vec![ports]).await;
    let script = Arc::new(Script::new(cell, defect));
    let empty = rig.simulator.ledger();
    let site = begin(cell, folder, rig, script, empty).await;
    let mut runner = match cell.disturbance {
        Disturbance::Forward(_) => {
            strike(&site, cell);
            site.rig.run(Some(site.script.clone()))
        }
        Disturbance::Undo(_) => turn_back(&site, cell).await,
    };
    let mut outcome = Outcome::default();
    if cell.disturbance == Disturbance::Forward(20) {
        leave(&site).await;
    }
    let first = ended(&site, &mut runner).await;
    outcome.end = first.to_owned();
    let fired = site.rig.simulator.faults().fired() + u64::from(site.script.fired());
    if fired == 0 && cell.disturbance != Disturbance::Forward(20) {
        outcome.complaints.push("the fault never struck".to_owned());
    }
    let last = if first == "stuck" { mend(&site, &mut runner, &mut outcome).await } else { first };
    let came = match (first, last) {
        ("done", _) => Some(End::Done),
        ("undone", _) => Some(End::Undone),
        ("stuck", "done") => Some(End::StuckThenDone),
        ("stuck", "undone") => Some(End::StuckThenUndone),
        _ => None,
    };
    if came != Some(expected(cell)) {
        let wanted = expected(cell);
        outcome.complaints.push(format!("it ended {first}, then {last}; expected was {wanted:?}"));
    }
    runner.stop().await;
    check::all(&site, cell, last, &mut outcome).await;
    site.rig.simulator.shutdown().await;
    outcome
}

/// The application and its operation, planned and not begun; for a deletion it runs already.
async fn begin(cell: Cell, folder: TempDir, rig: Rig, script: Arc<Script>, empty: Ledger) -> Site {
    let begun = match cell.saga {
        Saga::CloneLive | Saga::CloneDown => Some(others::begin_clone(&rig, cell.saga).await),
        Saga::Adopt | Saga::Release => Some(others::begin_adoption(&rig, cell.saga).await),
        Saga::Template | Saga::Image | Saga::Delete | Saga::Backup | Saga::BackupDelete => None,
        Saga::Restore | Saga::RestoreInPlace => None,
        Saga::Start | Saga::Stop | Saga::Restart => None,
    };
    if let Some(others::Begun { application, operation, before, source }) = begun {
        return Site {
            _folder: folder,
            rig,
            script,
            application,
            operation,
            empty,
            before,
            source,
        };
    }
    let (application, deployment) =
        rig.deploy_from("cell", 104, 8_100, cell.saga.source(), cell.saga.health()).await;
    if matches!(cell.saga, Saga::Template | Saga::Image) {
        let before = empty.clone();
        return Site {
            _folder: folder,
            rig,
            script,
            application,
            operation: deployment,
            empty,
            before,
            source: None,
        };
    }
    let runner = rig.run(None);
    assert_eq!(rig.ended(deployment, PATIENCE).await, "done", "the deployment before the deletion");
    if matches!(cell.saga, Saga::BackupDelete | Saga::Restore | Saga::RestoreInPlace) {
        let made = rig.back_up(&application).await;
        assert_eq!(rig.ended(made, PATIENCE).await, "done", "the backup before its use");
    }
    if cell.saga == Saga::Start {
        let stopped = rig.begin(&application, Kind::Stop).await;
        assert_eq!(rig.ended(stopped, PATIENCE).await, "done", "the stop before the start");
    }
    runner.stop().await;
    let before = rig.simulator.ledger();
    let operation = match cell.saga {
        Saga::Start => rig.begin(&application, Kind::Start).await,
        Saga::Stop => rig.begin(&application, Kind::Stop).await,
        Saga::Restart => rig.begin(&application, Kind::Restart).await,
        Saga::Backup => rig.back_up(&application).await,
        Saga::BackupDelete => rig.delete_backup(&application).await,
        Saga::Restore => rig.restore(&application, RestoreWay::Swap, |_| {}).await,
        Saga::RestoreInPlace => rig.restore(&application, RestoreWay::InPlace, |_| {}).await,
        _ => rig.begin(&application, Kind::Delete).await,
    };
    Site { _folder: folder, rig, script, application, operation, empty, before, source: None }
}

fn strike(site: &Site, cell: Cell) {
    for rule in touch::rules(cell) {
        site.rig.simulator.faults().add(rule).unwrap();
    }
}

/// Lets the operation run up to its last reversible step and turns it back there.
async fn turn_back(site: &Site, cell: Cell) -> RunnerHandle {
    let runner = site.rig.run(Some(site.script.clone()));
    tokio::time::timeout(PATIENCE, site.script.died.notified()).await.expect("the runner died");
    runner.stop().await;
    let cancel = Op::Cancel { by: UserId(1), reason: "changed their mind".to_owned() };
    apply(site, cancel).await;
    site.script.arm_undo();
    strike(site, cell);
    site.rig.run(Some(site.script.clone()))
}

/// The caller who waits for the operation goes away in the middle of the step.
async fn leave(site: &Site) {
    let (store, id) = (site.rig.store.clone(), site.operation.to_string());
    let caller = tokio::spawn(async move {
        let mut head = store.watch_head();
        while load::<Operation>(&store, &id)
            .await
            .is_ok_and(|(state, _)| state.progress().is_some())
        {
            if head.changed().await.is_err() {
                return;
            }
        }
    });
    tokio::time::timeout(PATIENCE, site.script.begun.notified()).await.expect("the step began");
    caller.abort();
}

async fn apply(site: &Site, command: Op) {
    let mut unit = Unit::new(&site.rig.store, Actor::system("matrix").metadata("matrix.apply"));
    unit.apply::<Operation>(&site.operation.to_string(), command).await.unwrap();
    unit.commit().await.unwrap();
}

/// Waits for the end, and starts a new runner whenever the old one has died.
async fn ended(site: &Site, runner: &mut RunnerHandle) -> &'static str {
    let deadline = Instant::now() + PATIENCE;
    let mut head = site.rig.store.watch_head();
    loop {
        let id = site.operation.to_string();
        let (state, _) = load::<Operation>(&site.rig.store, &id).await.unwrap();
        match &state {
            Operation::Done => return "done",
            Operation::Undone => return "undone",
            Operation::Abandoned => return "abandoned",
            Operation::Absent => return "absent",
            Operation::Active(progress) if matches!(progress.phase, Phase::Stuck { .. }) => {
                return "stuck";
            }
            Operation::Active(_) if Instant::now() > deadline => return "unfinished",
            Operation::Active(_) => {}
        }
        tokio::select! {
            () = site.script.died.notified() => {
                let dead = std::mem::replace(runner, site.rig.run(Some(site.script.clone())));
                dead.stop().await;
            }
            _moved = head.changed() => {}
            // Only so that a hang is noticed.
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// Runs the commands that the instructions name, each between backquotes.
async fn follow(site: &Site, instructions: &str) {
    let lines = instructions.split('`').filter(|part| part.starts_with("pct "));
    for command in lines.flat_map(|line| line.split(" && ")) {
        let words: Vec<&str> = command.split(' ').collect();
        let vmid: u32 = words[2].parse().unwrap();
        match words[1] {
            "destroy" => site.rig.simulator.destroy_container(vmid).await.unwrap(),
            "unlock" => site.rig.simulator.edit_container(vmid, "lock", None).unwrap(),
            _ => {}
        }
    }
}

/// What an operator does about a stuck operation: reads why, does what it says, resumes.
async fn mend(site: &Site, runner: &mut RunnerHandle, outcome: &mut Outcome) -> &'static str {
    let why = check::why_stuck(&site.rig.events().await, site.operation);
    match why {
        Some((reason, instructions)) if !reason.is_empty() && !instructions.is_empty() => {
            follow(site, &instructions).await;
        }
        other => outcome.complaints.push(format!("it is stuck and does not say why: {other:?}")),
    }
    site.rig.simulator.clear_faults();
    site.script.lift();
    apply(site, Op::Resume { by: UserId(1), note: "mended".to_owned() }).await;
    ended(site, runner).await
}
