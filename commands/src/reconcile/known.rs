//! What the log says of applications and of numbers, as far as it has been read.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate as _;
use proximity_domain::application::{Application, Event, Origin, Requested};
use proximity_domain::host::Host;
use proximity_domain::lease::{Event as LeaseEvent, Holder, Lease};
use proximity_domain::operation::{Direction, Event as OperationEvent, Operation};
use proximity_domain::{ApplicationId, ClusterName, HostId, LeaseKey, OperationId, UserId, Vmid};
use proximity_eventstore::{Position, Recorded, Store};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Steps from whose beginning on an application's own container may be without its protection, and
/// which one sets it again when it is taken back.
const UNPROTECT: [&str; 2] = ["unprotect_original", "overwrite"];

/// Events read at a time.
const PAGE: usize = 2_000;

/// All applications that ever were, and all numbers that were ever leased.
#[derive(Default)]
pub(super) struct Known {
    pub(super) applications: BTreeMap<ApplicationId, KnownApplication>,
    pub(super) numbers: BTreeMap<(ClusterName, Vmid), Number>,
    pub(super) hosts: BTreeMap<HostId, Host>,
    /// Operations that a person gave up: what they left is his to decide about.
    abandoned: BTreeSet<OperationId>,
    /// Operations that may have taken a protection off, and have neither ended nor set it again.
    unprotecting: BTreeSet<OperationId>,
    cursor: Position,
}

/// An application.
pub(super) struct KnownApplication {
    pub(super) state: Application,
    /// Of its stream's last event: what is decided from this is only stored right after it.
    pub(super) sequence: u64,
    pub(super) owner: UserId,
    /// Its container was someone's before it was ours.
    pub(super) adopted: bool,
    /// An operation on it that may have taken its protection off, and was given up: no look has seen
    /// since that it is set.
    pub(super) given_up: Option<OperationId>,
}

/// A number of a cluster.
#[derive(Default)]
pub(super) struct Number {
    pub(super) lease: Lease,
    pub(super) sequence: u64,
    /// The application that had it last.
    pub(super) last: Option<ApplicationId>,
    /// The operation that gave it back, since it was leased last.
    pub(super) given_back_by: Option<OperationId>,
}

impl Known {
    /// Follows the log to its end.
    pub(super) async fn read(&mut self, store: &Store) -> Result<(), Error> {
        loop {
            let page = store
                .feed(self.cursor, PAGE)
                .await
                .map_err(|error| Error::internal("the log cannot be read", error))?;
            for event in &page {
                match event.aggregate_type.as_str() {
                    Application::TYPE => self.application(event)?,
                    Lease::TYPE => self.number(event)?,
                    Host::TYPE => self.host(event)?,
                    Operation::TYPE if event.event_type == "operation.abandoned" => {
                        self.abandoned.extend(event.aggregate_id.parse::<OperationId>());
                    }
                    Operation::TYPE => self.operation(event)?,
                    _ => {}
                }
                self.cursor = event.position;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Whether a person gave this operation up.
    pub(super) fn was_abandoned(&self, operation: OperationId) -> bool {
        self.abandoned.contains(&operation)
    }

    /// Follows which operations leave a container unprotected where they stand.
    fn operation(&mut self, recorded: &Recorded) -> Result<(), Error> {
        let Ok(id) = recorded.aggregate_id.parse::<OperationId>() else { return Ok(()) };
        match recorded.event_type.as_str() {
            "operation.completed" | "operation.undone" => {
                self.unprotecting.remove(&id);
            }
            // Few are of such a step, and all of the log is read at a start.
            "operation.step_intended" | "operation.step_succeeded"
                if UNPROTECT.iter().any(|step| recorded.payload.contains(step)) =>
            {
                match stored(recorded)? {
                    OperationEvent::StepIntended { step, direction: Direction::Act, .. }
                        if UNPROTECT.contains(&step.as_str()) =>
                    {
                        self.unprotecting.insert(id);
                    }
                    OperationEvent::StepSucceeded { step, direction: Direction::Undo, .. }
                        if UNPROTECT.contains(&step.as_str()) =>
                    {
                        self.unprotecting.remove(&id);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn application(&mut self, recorded: &Recorded) -> Result<(), Error> {
        let Ok(id) = recorded.aggregate_id.parse::<ApplicationId>() else { return Ok(()) };
        let mut event: Event = stored(recorded)?;
        if let Event::Requested(requested) = &mut event {
            forget_contents(requested);
            let known = KnownApplication {
                state: Application::default(),
                sequence: 0,
                owner: requested.owner,
                adopted: requested.origin == Origin::Adopted,
                given_up: None,
            };
            self.applications.insert(id.clone(), known);
        }
        if let Some(known) = self.applications.get_mut(&id) {
            match &event {
                Event::OperationAbandoned { operation, .. }
                    if self.unprotecting.contains(operation) =>
                {
                    known.given_up = Some(*operation);
                }
                // The container that it was is not its own any more.
                Event::Protected { .. } | Event::GuestSwapped { .. } => known.given_up = None,
                _ => {}
            }
            known.state.apply(event);
            known.sequence = recorded.sequence;
        }
        Ok(())
    }

    fn host(&mut self, recorded: &Recorded) -> Result<(), Error> {
        if let Ok(id) = recorded.aggregate_id.parse() {
            self.hosts.entry(id).or_default().apply(stored(recorded)?);
        }
        Ok(())
    }

    fn number(&mut self, recorded: &Recorded) -> Result<(), Error> {
        let Ok(LeaseKey::Vmid(cluster, vmid)) = recorded.aggregate_id.parse() else {
            return Ok(());
        };
        let event: LeaseEvent = stored(recorded)?;
        let number = self.numbers.entry((cluster, vmid)).or_default();
        if let LeaseEvent::Acquired { holder: Holder::Application(id) } = &event {
            number.last = Some(id.clone());
            number.given_back_by = None;
        }
        if let LeaseEvent::Quarantined { .. } = &event {
            number.given_back_by = operation_of(recorded);
        }
        number.lease.apply(event);
        number.sequence = recorded.sequence;
        Ok(())
    }
}

/// What runs in a container and how it is described is never compared with Proxmox, and would be most of
/// what each application takes in memory.
fn forget_contents(requested: &mut Requested) {
    requested.environment = BTreeMap::new();
    requested.config = BTreeMap::new();
    let Requested { name, catalog_id, catalog_version, icon, category, description, .. } =
        requested;
    for text in [name, catalog_id, catalog_version, icon, category, description] {
        *text = String::new();
    }
}

/// The operation that an event belongs to.
fn operation_of(recorded: &Recorded) -> Option<OperationId> {
    let metadata: serde_json::Value = serde_json::from_str(&recorded.metadata).ok()?;
    metadata.get("correlation")?.as_str()?.parse().ok()
}

fn stored<E: DeserializeOwned>(recorded: &Recorded) -> Result<E, Error> {
    serde_json::from_str(&recorded.payload)
        .map_err(|error| Error::internal("a stored event cannot be read", error))
}
