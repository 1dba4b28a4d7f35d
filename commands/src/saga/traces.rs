//! What an operation's own events say of the volumes that it may have made: what stood there before,
//! which of its tasks made any, and which were named to a person.

use std::collections::BTreeSet;

use proximity_domain::operation::{Direction, Event, FailureClass, Operation, Site, Volumes};
use proximity_domain::plan::{GuestRef, Plan};
use proximity_domain::{ApplicationId, Vmid};
use proximity_eventstore::{Recorded, Store};

use crate::clock::SECOND;
use crate::error::Error;

/// What an operation has done under one number to make a container there, as far as it has come.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) application: ApplicationId,
    pub(crate) plan: Plan,
    pub(crate) stood: Option<Volumes>,
    pub(crate) site: Option<Site>,
    /// Seconds since 1970, the database host's clock: when it looked what stood there.
    pub(crate) looked_at: i64,
    /// Ids of the tasks that it is known to have made anything with.
    pub(crate) made: BTreeSet<String>,
    /// Why it was stuck, all reasons in one; `None` when it never was.
    told: Option<String>,
    /// The step that makes the container, once it has looked what stood there.
    step: Option<String>,
    /// Which way that step is being tried; `None` between tries.
    open: Option<Direction>,
    /// A try of that step was broken off, or has failed.
    is_rough: bool,
    /// Such a try may have made something with a task whose id is not known.
    is_blind: bool,
    /// How its work under this number ended, and when: seconds since 1970, the database host's clock.
    end: Option<(End, i64)>,
}

/// How an operation's work under a number ended, other than well.
#[derive(Debug, Clone, Copy)]
enum End {
    Abandoned,
    Undone,
    /// A stranger had the number, and it took another one.
    Moved,
}

impl Traces {
    /// Of a stream from its beginning on, under the number that it has now; `None` for one that is planned
    /// to make nothing.
    pub(super) async fn read(store: &Store, operation: &str) -> Result<Option<Self>, Error> {
        Ok(Self::all(store, operation).await?.pop())
    }

    /// The same under each number that it has had, in turn.
    pub(crate) async fn all(store: &Store, operation: &str) -> Result<Vec<Self>, Error> {
        let events = store.load_stream(<Operation as cqrs_es::Aggregate>::TYPE, operation).await;
        let events = events.map_err(|error| Error::internal("a stream cannot be read", error))?;
        Self::of(&events)
    }

    fn of(events: &[Recorded]) -> Result<Vec<Self>, Error> {
        let mut all: Vec<Self> = Vec::new();
        for recorded in events {
            let event = serde_json::from_str::<Event>(&recorded.payload)
                .map_err(|error| Error::internal("a stored event cannot be read", error))?;
            let at = recorded.recorded_at / SECOND;
            match (event, all.last_mut()) {
                (Event::Planned { application, plan, .. }, _) => {
                    all.push(Self::begun(application, plan));
                }
                // What was tried under another number says nothing of this one.
                (Event::PlanChanged { plan, .. }, Some(last)) => {
                    last.end = Some((End::Moved, at));
                    let next = Self::begun(last.application.clone(), plan);
                    all.push(next);
                }
                (event, Some(last)) => last.take(event, at),
                (_, None) => {}
            }
        }
        all.retain(|traces| making(&traces.plan).is_some());
        Ok(all)
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
            step: None,
            open: None,
            is_rough: false,
            is_blind: false,
            end: None,
        }
    }

    fn take(&mut self, event: Event, at: i64) {
        match event {
            Event::StepIntended { step, direction, stood, site, .. } => {
                if let Some(stood) = stood {
                    (self.stood, self.site, self.looked_at) = (Some(stood), site, at);
                    self.step = Some(step.clone());
                }
                if self.is_of(&step)
                    && let Some(broken_off) = self.open.replace(direction)
                {
                    self.is_rough = true;
                    self.is_blind |= broken_off == Direction::Act;
                }
            }
            Event::StepSucceeded { step, .. } if self.is_of(&step) => self.open = None,
            Event::StepFailed { step, direction, failure, .. } if self.is_of(&step) => {
                self.open = None;
                self.is_rough = true;
                let is_unknown = failure.class == FailureClass::Unknown;
                self.is_blind |= direction == Direction::Act && is_unknown;
            }
            Event::TaskStarted { direction: Direction::Act, upid, .. } if self.is_making(&upid) => {
                self.made.insert(upid);
            }
            Event::Stuck { reason, .. } => {
                let told = self.told.get_or_insert_default();
                told.push_str(&reason);
                told.push(' ');
            }
            Event::Abandoned { .. } => self.end = Some((End::Abandoned, at)),
            Event::Undone { .. } => self.end = Some((End::Undone, at)),
            _ => {}
        }
    }

    /// Whether this is the step that makes the container.
    fn is_of(&self, step: &str) -> bool {
        self.step.as_deref() == Some(step)
    }

    /// Whether a task of its has made something, or may have: one whose id is not known, too.
    pub(crate) fn may_have_made(&self) -> bool {
        self.is_blind || !self.made.is_empty()
    }

    /// When its work under this number ended, if that may have left volumes there: seconds since 1970.
    /// One that was undone after a making that went well at once has not; of any other nothing says whether
    /// the number was free, without which no volumes were looked for.
    pub(crate) fn may_have_left(&self) -> Option<i64> {
        let (end, at) = self.end?;
        let may_have_made = self.may_have_made();
        let may_have_left = match end {
            End::Abandoned => true,
            End::Moved => may_have_made,
            End::Undone => may_have_made && self.is_rough,
        };
        may_have_left.then_some(at)
    }

    /// Whether a task, by its id, is of the kind that makes this operation's container.
    fn is_making(&self, upid: &str) -> bool {
        let mut parts = upid.split(':').skip(5);
        making(&self.plan).is_some_and(|(kind, number)| {
            parts.next() == Some(kind) && parts.next() == Some(&*number.to_string())
        })
    }

    /// Whether a person was told this when it was stuck.
    pub(super) fn was_told(&self, words: &str) -> bool {
        self.told.as_ref().is_some_and(|told| told.contains(words))
    }

    /// Whether the volume may go as far as a person was told: one who has resumed the operation has
    /// agreed to what its reason named, and to nothing else.
    pub(super) fn is_agreed(&self, volume: &str) -> bool {
        self.told.is_none() || self.has_named(volume)
    }

    /// Whether the volume was named to a person when it was stuck.
    pub(super) fn has_named(&self, volume: &str) -> bool {
        let is_end = |letter: char| " ,;`".contains(letter);
        self.told.as_ref().is_some_and(|told| told.split(is_end).any(|word| word == volume))
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
