//! The cells, computed from the lists of steps, and the one expected end of each.

use std::fmt;

use proximity_commands::saga::{Step, steps};
use proximity_domain::plan::{
    DeletePlan, DeployPlan, GuestRef, Health, Holdings, Plan, PowerPlan, Probe, RestoreWay, Source,
};
use proximity_domain::settings::{default_network, default_resources};

use super::others;
use crate::backups::{backup_deletion, backup_plan, restore_plan};
use crate::rig::{CLUSTER, HOST};

/// Faults that strike a step on its way forward.
pub const FORWARD_FAULTS: u8 = 20;
/// Faults that strike a step's undo.
pub const UNDO_FAULTS: u8 = 5;

/// Whose steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saga {
    /// A deployment from an OS template that has to be downloaded.
    Template,
    /// A deployment from an image that has to be pulled, judged by an answer over HTTP.
    Image,
    /// The deletion of a running application.
    Delete,
    /// A copy of a running application, from a snapshot.
    CloneLive,
    /// A copy of a running application that is stopped meanwhile.
    CloneDown,
    /// The adoption of a stranger's container.
    Adopt,
    /// The deletion of an adopted application: its container is given back.
    Release,
    /// A backup of a running application.
    Backup,
    /// The removal of a backup of a running application.
    BackupDelete,
    /// The restore of a running application into a new container.
    Restore,
    /// The restore of a running application over its own container.
    RestoreInPlace,
    Start,
    Stop,
    Restart,
}

/// All of them.
const SAGAS: [Saga; 14] = [
    Saga::Template,
    Saga::Image,
    Saga::Delete,
    Saga::CloneLive,
    Saga::CloneDown,
    Saga::Adopt,
    Saga::Release,
    Saga::Backup,
    Saga::BackupDelete,
    Saga::Restore,
    Saga::RestoreInPlace,
    Saga::Start,
    Saga::Stop,
    Saga::Restart,
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// 1 to 20.
    Forward(u8),
    /// 1 to 5.
    Undo(u8),
}

/// One step under one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub saga: Saga,
    pub step: &'static str,
    pub disturbance: Disturbance,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, step, disturbance } = self;
        match disturbance {
            Disturbance::Forward(fault) => write!(f, "{saga:?} {step} forward {fault:02}"),
            Disturbance::Undo(fault) => write!(f, "{saga:?} {step} undo {fault}"),
        }
    }
}

/// How a cell has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    Undone,
    /// Stuck, and `done` after the fault is lifted and the operation resumed.
    StuckThenDone,
    /// Stuck, and `undone` after the fault is lifted and the operation resumed.
    StuckThenUndone,
}

impl Saga {
    /// What a template is made of: one that the node does not have yet.
    pub fn source(self) -> Source {
        match self {
            Self::Image => {
                Source::Oci { image: "docker.io/library/nginx:1.29".to_owned(), entrypoint: None }
            }
            // The deployments themselves, and what comes after one that has to download.
            Self::Template | Self::Delete | Self::CloneLive | Self::CloneDown => {
                Source::Template { os: "debian".to_owned(), version: "12".to_owned() }
            }
            _ => Source::Template { os: "alpine".to_owned(), version: "3.22".to_owned() },
        }
    }

    /// When its application counts as there.
    pub fn health(self) -> Health {
        let probe = match self {
            Self::Image => {
                let port = 18_080.try_into().unwrap();
                Probe::Http { port, path: "/".to_owned(), expect: Some(200) }
            }
            _ => Probe::Running,
        };
        Health { probe, within_s: 1 }
    }

    /// The plan whose list of steps counts.
    fn plan(self) -> Plan {
        let guest = GuestRef {
            host: HOST,
            cluster: CLUSTER.parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: 104.try_into().unwrap(),
        };
        match self {
            Self::Backup => return Plan::Backup(backup_plan(guest)),
            Self::BackupDelete => return Plan::BackupDelete(backup_deletion(guest)),
            Self::Restore => {
                return Plan::Restore(Box::new(restore_plan(guest, RestoreWay::Swap)));
            }
            Self::RestoreInPlace => {
                return Plan::Restore(Box::new(restore_plan(guest, RestoreWay::InPlace)));
            }
            _ => {}
        }
        let power = PowerPlan { guest: guest.clone(), force: false, health: self.health() };
        match self {
            Self::Start => return Plan::Start(power),
            Self::Stop => return Plan::Stop(power),
            Self::Restart => return Plan::Restart(power),
            _ => {}
        }
        if !matches!(self, Self::Template | Self::Image | Self::Delete) {
            return others::plan(self, guest);
        }
        if self == Self::Delete {
            return Plan::Delete(DeletePlan {
                guest: Some(guest),
                holdings: None,
                was_running: true,
                adopted_by: None,
                replaced: false,
                detached: false,
            });
        }
        Plan::Deploy(Box::new(DeployPlan {
            agreed: false,
            guest,
            holdings: Holdings {
                hostname: "cell".parse().unwrap(),
                public_port: Some(8_100.try_into().unwrap()),
                internal_port: Some(9_100.try_into().unwrap()),
                address: None,
            },
            source: self.source(),
            template_storage: "local".to_owned(),
            disk_storage: "local-btrfs".to_owned(),
            resources: default_resources(),
            network: default_network(),
            environment: std::collections::BTreeMap::new(),
            unprivileged: true,
            features: None,
            health: self.health(),
        }))
    }
}

impl Cell {
    /// The step after which an unwinding is started: the last one that can be taken back, or the one
    /// after which this step's undo still has something to do.
    pub fn turning_point(self) -> &'static str {
        if matches!(self.step, "snapshot_source" | "stop_source") {
            return "clone_container";
        }
        if self.saga == Saga::Restart && self.step == "stop" {
            return "stop";
        }
        reversible(&self.saga.plan()).last().unwrap().name()
    }
}

/// The steps that can be taken back: those before the pivot.
fn reversible(plan: &Plan) -> impl Iterator<Item = &'static dyn Step> {
    steps(plan).iter().copied().take_while(|step| !step.is_pivot())
}

/// Every step × 20, and every undo × 5; from the pivot on nothing is taken back.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for saga in SAGAS {
        let plan = saga.plan();
        for step in steps(&plan) {
            let mut add = |disturbance| {
                cells.push(Cell { saga, step: step.name(), disturbance });
            };
            (1..=FORWARD_FAULTS).map(Disturbance::Forward).for_each(&mut add);
            if reversible(&plan).any(|other| other.name() == step.name()) {
                (1..=UNDO_FAULTS).map(Disturbance::Undo).for_each(&mut add);
            }
        }
    }
    cells
}

/// The number of cells that the lists of steps ask for, counted apart from [`all`].
pub fn asked_for() -> usize {
    SAGAS
        .into_iter()
        .map(|saga| {
            let plan = saga.plan();
            let count = steps(&plan).len();
            let pivot = steps(&plan).iter().position(|step| step.is_pivot()).unwrap_or(count);
            count * usize::from(FORWARD_FAULTS) + pivot * usize::from(UNDO_FAULTS)
        })
        .sum()
}

/// The one expected end.
///
/// A fault that ends by itself is survived. What is refused for good is taken back, and from the
/// pivot on, where there is no way back, waits for an operator. So does an undo that fails for ever,
/// and a lock that Proxmox left behind and lets nobody but an operator remove.
pub fn expected(cell: Cell) -> End {
    if cell.saga == Saga::RestoreInPlace {
        // Behind the pivot an address that never comes waits for an operator as well.
        match (cell.step, cell.disturbance) {
            ("overwrite", Disturbance::Forward(1 | 10))
            | ("start", Disturbance::Forward(1))
            | ("wait_healthy", Disturbance::Forward(1 | 9)) => return End::StuckThenDone,
            _ => {}
        }
    }
    match (cell.step, cell.disturbance) {
        // Taking the stop back needs the very call that is refused.
        ("start", Disturbance::Forward(1)) if cell.saga == Saga::Restart => End::StuckThenUndone,
        ("swap" | "destroy_original", Disturbance::Forward(1)) => End::StuckThenDone,
        ("destroy" | "unmark_container" | "delete_backup", Disturbance::Forward(1)) => {
            End::StuckThenDone
        }
        // The worker died and left `lock: backup`.
        ("create_backup", Disturbance::Forward(10)) => End::StuckThenUndone,
        // Taking back what came before needs the very call that is refused: a copy has its source's
        // protection, which has to go before it can.
        ("remove_snapshot" | "start_source" | "configure_clone", Disturbance::Forward(1)) => {
            End::StuckThenUndone
        }
        (_, Disturbance::Forward(1)) => End::Undone,
        // No address ever: the application does not answer within its time.
        ("wait_healthy", Disturbance::Forward(9)) => End::Undone,
        // The worker died and left `lock: create`.
        ("create_container" | "restore_container", Disturbance::Forward(10)) => {
            End::StuckThenUndone
        }
        // Likewise `lock: snapshot`, `lock: snapshot-delete`, or `lock: disk` on the source.
        ("snapshot_source" | "remove_snapshot" | "clone_container", Disturbance::Forward(10)) => {
            End::StuckThenUndone
        }
        (_, Disturbance::Forward(_)) => End::Done,
        (_, Disturbance::Undo(5)) => End::StuckThenUndone,
        (_, Disturbance::Undo(_)) => End::Undone,
    }
}
