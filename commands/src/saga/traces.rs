//! What an operation's own events say of the volumes that it may have made: what stood there before,
//! which of its tasks made any, and which were named to a person.

use std::collections::BTreeSet;

use proximity_domain::operation::{Direction, Event, Operation, Site, Volumes};
use proximity_domain::plan::{GuestRef, Plan};
use proximity_domain::{ApplicationId, Vmid};
use proximity_eventstore::{Recorded, Store};

use crate::clock::SECOND;
use crate::error::Error;

/// An operation that makes a container, as far as it has come.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) application: ApplicationId,
    pub(crate) plan: Plan,
    pub(crate) stood: Option<Volumes>,
    pub(crate) site: Option<Site>,
    /// Seconds since 1970, the database host's clock: when it looked what stood there.
    pub(super) looked_at: i64,
    /// Ids of the tasks that it is known to have made anything with.
    pub(crate) made: BTreeSet<String>,
    /// Why it was stuck, all reasons in one; `None` when it never was.
    told: Option<String>,
    /// Seconds since 1970, the database host's clock: when it was given up.
    pub(crate) abandoned_at: Option<i64>,
}

impl Traces {
    /// Of a stream from its beginning on; `None` for one that is planned to make nothing.
    pub(crate) async fn read(store: &Store, operation: &str) -> Result<Option<Self>, Error> {
        let events = store.load_stream(<Operation as cqrs_es::Aggregate>::TYPE, operation).await;
        let events = events.map_err(|error| Error::internal("a stream cannot be read", error))?;
        Self::of(&events)
    }

    fn of(events: &[Recorded]) -> Result<Option<Self>, Error> {
        let mut traces: Option<Self> = None;
        for recorded in events {
            let event = serde_json::from_str::<Event>(&recorded.payload)
                .map_err(|error| Error::internal("a stored event cannot be read", error))?;
            let at = recorded.recorded_at / SECOND;
            match (event, &mut traces) {
                (Event::Planned { application, plan, .. }, _) => {
                    traces = Some(Self::begun(application, plan));
                }
                // What was tried under another number says nothing of this one.
                (Event::PlanChanged { plan, .. }, Some(traces)) => {
                    *traces = Self::begun(traces.application.clone(), plan);
                }
                (event, Some(traces)) => traces.take(event, at),
                (_, None) => {}
            }
        }
        Ok(traces.filter(|traces| making(&traces.plan).is_some()))
    }

    fn begun(application: ApplicationId, plan: Plan) -> Self {
        Self {
            application,
            plan,
            stood: None,
            site: None,
            looked_at: 0,
            made: BTreeSet::new(),
            told: None,
            abandoned_at: None,
        }
    }

    fn take(&mut self, event: Event, at: i64) {
        match event {
            Event::StepIntended { stood: Some(stood), site, .. } => {
                (self.stood, self.site, self.looked_at) = (Some(stood), site, at);
            }
            Event::TaskStarted { direction: Direction::Act, upid, .. } if self.is_making(&upid) => {
                self.made.insert(upid);
            }
            Event::Stuck { reason, .. } => {
                let told = self.told.get_or_insert_default();
                told.push_str(&reason);
                told.push(' ');
            }
            Event::Abandoned { .. } => self.abandoned_at = Some(at),
            _ => {}
        }
    }

    /// Whether a task, by its id, is of the kind that makes this operation's container.
    fn is_making(&self, upid: &str) -> bool {
        let mut parts = upid.split(':').skip(5);
        making(&self.plan).is_some_and(|(kind, number)| {
            parts.next() == Some(kind) && parts.next() == Some(&*number.to_string())
        })
    }

    /// Whether the volume may go as far as a person was told: one who has resumed the operation has
    /// agreed to what its reason named, and to nothing else.
    pub(super) fn is_agreed(&self, volume: &str) -> bool {
        let is_end = |letter: char| " ,;`".contains(letter);
        self.told.as_ref().is_none_or(|told| told.split(is_end).any(|word| word == volume))
    }
}

/// The kind of task that makes a plan's container, and the number that the task goes by: a copy's goes
/// by the number of its source.
pub(super) fn making(plan: &Plan) -> Option<(&'static str, Vmid)> {
    match plan {
        Plan::Deploy(plan) => Some(("vzcreate", plan.guest.vmid)),
        Plan::Restore(plan) => Some(("vzrestore", plan.guest.vmid)),
        Plan::Clone(plan) => Some(("vzclone", plan.source_guest.vmid)),
        Plan::Adopt(_) | Plan::Backup(_) | Plan::BackupDelete(_) | Plan::Delete(_) => None,
        Plan::Start(_) | Plan::Stop(_) | Plan::Restart(_) => None,
    }
}

/// The node that a task's id names.
pub(crate) fn node_of(upid: &str) -> Option<proximity_domain::NodeName> {
    upid.split(':').nth(1)?.parse().ok()
}

/// Where a plan's container is made, if nobody has looked elsewhere.
pub(crate) fn place_of(plan: &Plan) -> Option<&GuestRef> {
    making(plan).and_then(|_| plan.guest())
}
